"""The sequence tasks: stacked LSTM layers with a cut at the output of each, and their options."""

from __future__ import annotations

import argparse
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from . import comparison, comparison_options, options
from .argument_types import names
from .errors import TaskError
from .modes import Configuration, DEFAULT_MODES, SYNTHESIZERS
from .task import Batch, step_generator, Task

_TEST_BATCHES, _TEST_BATCH_SIZE = 4, 256

_LEARNING_RATE = 3e-3


class StackedLSTM(nn.Module):
    """LSTM layers, each a separate module so that its output can be cut, and a linear layer.

    Shape:
        Maps ``(batch, time, input_size)`` to ``(batch, time, output_size)``.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, depth: int) -> None:
        super().__init__()
        sizes = [input_size, *[hidden_size] * (depth - 1)]
        self.lstms = nn.ModuleList(nn.LSTM(size, hidden_size, batch_first=True) for size in sizes)
        self.head = nn.Linear(hidden_size, output_size)

    def forward(self, input: Tensor) -> Tensor:
        """Compute the output at each position."""
        for lstm in self.lstms:
            input, _ = lstm(input)
        output: Tensor = self.head(input)
        return output


class SequenceTask(Task):
    """A task on random sequences; subclasses make the samples and set the sizes.

    Attributes:
        input_size: Number of input features at each position.
        output_size: Number of output features at each position.
    """

    layers = "lstms.*"
    input_size: int
    output_size: int

    def __init__(self, args: argparse.Namespace) -> None:
        self._hidden_size, self._depth = args.hidden, args.depth
        self._batch_size, self._device = args.batch, args.device
        self.default_steps = args.default_steps

    def build_network(self) -> nn.Module:
        """Build stacked LSTM layers."""
        return StackedLSTM(self.input_size, self._hidden_size, self.output_size, self._depth)

    def training_batch(self, seed: int, step: int) -> Batch:
        """Return new random samples for each step."""
        return self._on_device(self.sample(self._batch_size, step_generator(seed, step)))

    def test_batches(self) -> Iterable[Batch]:
        """Return random samples of steps that no run trains on."""
        for i in range(_TEST_BATCHES):
            yield self._on_device(self.sample(_TEST_BATCH_SIZE, step_generator(0, -2 - i)))

    def _on_device(self, batch: Batch) -> Batch:
        return Batch(*(tensor.to(self._device) for tensor in batch))

    @abstractmethod
    def sample(self, count: int, random: torch.Generator) -> Batch:
        """Return ``count`` random samples on the CPU."""


def label_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the loss of local heads: cross-entropy at the positions that the mask selects.

    Args:
        prediction: Logits, ``(*, classes + 1)``; the last one is ignored.
        target: One-hot label and, last, the mask: ``(*, classes + 1)``.
    """
    label, mask = target[..., :-1], target[..., -1]
    losses = F.cross_entropy(prediction[..., :-1], label, reduction="none")
    return (losses * mask).sum() / mask.sum().clamp_min(1)


class LabelTask(SequenceTask):
    """A task with one label for each sequence; the output at the last position predicts it.

    The context holds at each position the one-hot label and a mask: 1 at the last position, else 0.
    """

    local_loss_params = {"loss": label_loss}  # noqa: RUF012

    def __init__(self, args: argparse.Namespace, classes: int) -> None:
        super().__init__(args)
        self.output_size = classes
        self.context_size = classes + 1

    def labelled_batch(self, input: Tensor, label: Tensor) -> Batch:
        """Return a batch of sequences with their labels and the context."""
        context = torch.zeros(*input.shape[:2], self.context_size)
        context[..., :-1] = F.one_hot(label, self.output_size).unsqueeze(1)
        context[:, -1, -1] = 1
        return Batch(input, label, context)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy at the last position."""
        return F.cross_entropy(output[:, -1], target)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """Compute the fraction of wrong labels."""
        return (output[:, -1].argmax(-1) != batch.target).float().mean()


class DigitTask(LabelTask):
    """A task on sequences of random one-hot digits; subclasses compute the label."""

    def __init__(self, args: argparse.Namespace, classes: int) -> None:
        super().__init__(args, classes)
        self._digits, self._length = args.digits, args.length
        self.input_size = args.digits

    def sample(self, count: int, random: torch.Generator) -> Batch:
        """Return sequences of ``--length`` digits below ``--digits``, and their labels."""
        digits = torch.randint(self._digits, (count, self._length), generator=random)
        return self.labelled_batch(F.one_hot(digits, self._digits).float(), self.label(digits))

    @abstractmethod
    def label(self, digits: Tensor) -> Tensor:
        """Compute the labels ``(count,)`` of digits ``(count, length)``."""


def sequence_parser(
    task: str, description: str | None, *, steps: int, length: int
) -> options.Parser:
    """Return a parser with the options of all sequence tasks.

    Args:
        task: Name of the task's module.
        description: Description of the task.
        steps: Number of training steps if no option says it.
        length: Default of ``--length``.
    """
    parser = comparison_options.comparison_parser(
        task,
        description,
        batch=64,
        every=max(1, steps // 10),
        default_length=str(steps),
        lr=_LEARNING_RATE,
        default_modes=DEFAULT_MODES,
    )
    parser.set_defaults(default_steps=steps)
    parser.add_integer("--length", length, "length of the sequences", maximum=10_000)
    parser.add_integer("--hidden", 64, "width of the LSTM layers")
    parser.add_depth(2, "LSTM layers")
    parser.add_argument(
        "--synthesizer",
        type=names(SYNTHESIZERS),
        default=["linear"],
        metavar="NAME,...",
        help=f"synthesizers to compare in the modes dni and cdni: {', '.join(SYNTHESIZERS)} "
        "(default: linear); local predicts the context, so it needs --mode cdni or local",
    )
    # Wide by default, because an error of a prediction at one position affects all earlier ones.
    parser.add_integer("--synthesizer-hidden", 128, "width of the synthesizers")
    return parser


def digit_parser(task: str, description: str | None, *, steps: int, length: int) -> options.Parser:
    """Return a parser with the options of all tasks on digits.

    The arguments are those of :func:`sequence_parser`.
    """
    parser = sequence_parser(task, description, steps=steps, length=length)
    text = "number of different digits"
    parser.add_integer("--digits", 10, text, minimum=2, maximum=1000)
    return parser


def configurations(args: argparse.Namespace) -> list[Configuration]:
    """Return the rows of the comparison: ``dni`` and ``cdni`` once for each synthesizer.

    Raises:
        TaskError: A synthesizer needs a context, and no mode has one.
    """
    if "local" in args.synthesizer and not {"cdni", "local"} & {*args.mode}:
        raise TaskError("--synthesizer local predicts the context: choose --mode cdni or local")
    rows: dict[str, Configuration] = {}
    for mode in args.mode:
        for synthesizer in args.synthesizer if mode in ("dni", "cdni") else [None]:
            if synthesizer != "local":
                row = _configuration(args, mode, synthesizer)
            elif mode == "cdni":
                # With a context, this synthesizer is what the mode "local" consists of.
                row = _configuration(args, "local", None)
            else:
                continue  # it needs a context
            rows[row.label] = row
    return [*rows.values()]


def _configuration(args: argparse.Namespace, mode: str, synthesizer: str | None) -> Configuration:
    dni_arguments: dict[str, Any] = {} if mode == "bp" else {"grad_lr": args.grad_lr}
    if synthesizer is not None:
        dni_arguments["dni_network"] = SYNTHESIZERS[synthesizer]
        dni_arguments["hidden_size"] = args.synthesizer_hidden
    return Configuration(mode, args.lr, synthesizer, dni_arguments)


def run(
    parser: options.Parser,
    task: Callable[[argparse.Namespace], SequenceTask],
    argv: Sequence[str] | None,
) -> int:
    """Run a sequence task as a program and return its exit status.

    Args:
        parser: Parser of its options.
        task: Makes the task from the options.
        argv: Command-line arguments; None takes those of the process.
    """
    return comparison.run(parser, lambda args: (task(args), configurations(args)), argv)
