"""What the sequence tasks share: stacked LSTM layers, cut at their outputs, and their options."""

from __future__ import annotations

import argparse
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from . import options
from .modes import Recipe, SYNTHESIZERS
from .options import TaskError
from .task import Batch, generator, Task

_TEST_BATCHES = 4

# Without a context the synthesizer knows less, and the network must wait for it.
_LRS = {"bp": 3e-3, "dni": 3e-4, "cdni": 3e-3, "local": 3e-3}


class StackedLSTM(nn.Module):
    """LSTM layers, each a module of its own so that it can be cut off, and a linear head.

    Shape:
        ``(batch, time, input_size)`` to ``(batch, time, output_size)``.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, depth: int) -> None:
        super().__init__()
        sizes = [input_size, *[hidden_size] * (depth - 1)]
        self.lstms = nn.ModuleList(nn.LSTM(size, hidden_size, batch_first=True) for size in sizes)
        self.head = nn.Linear(hidden_size, output_size)

    def forward(self, input: Tensor) -> Tensor:
        """The head's output at each position."""
        for lstm in self.lstms:
            input, _ = lstm(input)
        output: Tensor = self.head(input)
        return output


class SequenceTask(Task):
    """A sequence task: subclasses make samples."""

    layers = "lstms.*"
    input_size: int
    output_size: int

    def __init__(self, args: argparse.Namespace) -> None:
        self._hidden, self._depth = args.hidden, args.depth
        self._batch, self._device = args.batch, args.device
        self.total = args.default_steps

    def network(self) -> nn.Module:
        """Stacked LSTM layers."""
        return StackedLSTM(self.input_size, self._hidden, self.output_size, self._depth)

    def batch(self, seed: int, step: int) -> Batch:
        """Fresh samples in each step."""
        batch = self.sample(self._batch, generator(seed, step))
        return Batch(*(tensor.to(self._device) for tensor in batch))

    def test(self) -> Iterable[Batch]:
        """Samples that no run trains on."""
        for i in range(_TEST_BATCHES):
            batch = self.sample(256, generator(0, -2 - i))
            yield Batch(*(tensor.to(self._device) for tensor in batch))

    @abstractmethod
    def sample(self, count: int, random: torch.Generator) -> Batch:
        """``count`` random samples."""


def label_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy at the positions where the label is due, for local losses.

    Args:
        prediction: Logits, ``(*, classes + 1)``; the last is left out.
        target: The label, one-hot, and, last, whether it is due here: ``(*, classes + 1)``.
    """
    label, due = target[..., :-1], target[..., -1]
    losses = F.cross_entropy(prediction[..., :-1], label, reduction="none")
    return (losses * due).sum() / due.sum().clamp_min(1)


class LabelTask(SequenceTask):
    """One label for a sequence, answered at its last position.

    The context holds the label at all positions, and where it is due.
    """

    local_params = {"loss": label_loss}  # noqa: RUF012

    def __init__(self, args: argparse.Namespace, classes: int) -> None:
        super().__init__(args)
        self.output_size = classes
        self.context_size = classes + 1

    def labelled(self, input: Tensor, label: Tensor) -> Batch:
        """A batch with its context."""
        context = torch.zeros(*input.shape[:2], self.context_size)
        context[..., :-1] = F.one_hot(label, self.output_size).unsqueeze(1)
        context[:, -1, -1] = 1
        return Batch(input, label, context)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output[:, -1], target)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """The fraction of wrong labels."""
        return (output[:, -1].argmax(-1) != batch.target).float().mean()


def parser(task: str, description: str, *, steps: int, length: int) -> options.Parser:
    """A parser with the options of all sequence tasks."""
    made = options.shared(task, description, batch=64, every=max(1, steps // 10), length=str(steps))
    made.set_defaults(default_steps=steps)
    add = made.add_argument
    add("--length", type=options.number(int, 1), default=length,
        help="length of the sequences (default: %(default)s)")  # fmt: skip
    add("--hidden", type=options.number(int, 1), default=64,
        help="width of the LSTM layers (default: %(default)s)")  # fmt: skip
    add("--depth", type=options.number(int, 1), default=2,
        help="number of LSTM layers (default: %(default)s)")  # fmt: skip
    add("--synthesizer", type=options.several([*SYNTHESIZERS]), default=["linear"],
        metavar="NAME,...",
        help=f"of modes dni and cdni, several of {', '.join(SYNTHESIZERS)} (default: linear); "
        "local predicts the context and needs a mode that has one")  # fmt: skip
    # Wide: errors of a prediction at one position go on to all positions before it.
    add("--synthesizer-hidden", type=options.number(int, 1), default=128,
        help="width of the synthesizers (default: %(default)s)")  # fmt: skip
    return made


def recipes(args: argparse.Namespace) -> list[Recipe]:
    """The rows of the comparison: modes ``dni`` and ``cdni`` once for each synthesizer."""
    if "local" in args.synthesizer and not {"cdni", "local"} & {*args.mode}:
        raise TaskError("--synthesizer local predicts the context: choose --mode cdni or local")
    rows: dict[str, Recipe] = {}
    for mode in args.mode:
        for name in args.synthesizer if mode in ("dni", "cdni") else [None]:
            if name == "local":
                # It needs a context, and with one it is what the mode of that name is.
                if mode == "dni":
                    continue
                row = _recipe(args, "local", None)
            else:
                row = _recipe(args, mode, name)
            rows[row.label] = row
    return [*rows.values()]


def _recipe(args: argparse.Namespace, mode: str, name: str | None) -> Recipe:
    dni: dict[str, Any] = {} if mode == "bp" else {"grad_lr": args.grad_lr}
    if name is not None:
        dni["dni_network"] = SYNTHESIZERS[name]
        dni["hidden_size"] = args.synthesizer_hidden
    return Recipe(mode, _LRS[mode] if args.lr is None else args.lr, name, dni)
