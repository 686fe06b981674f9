"""MNIST: handwritten digits, by a fully connected or a convolutional network."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from . import options, training
from .modes import Recipe
from .options import TaskError
from .task import Batch, generator, Task

_CLASSES = 10
_MEAN, _DEVIATION = 0.1307, 0.3081
_TEST_BATCH = 2500

# Without a context a synthesizer knows less: the network must wait for it, and it needs width.
_LRS = {"bp": 3e-4, "dni": 4e-5, "cdni": 3e-4, "local": 6e-4}
_PLAIN = {"hidden_size": 64}
# Beyond three layers, errors of predictions built on predictions add up: a slower network and a
# wider synthesizer follow them; a local loss needs a head that can tell more than a linear one.
_SHALLOW = 3
_DEEP_LR = 2e-4
# Fewer steps have to go further.
_SPARSE_LRS = {"dni": 1e-4, "cdni": 1e-3, "local": 1e-3}
_DEEP: dict[str, dict[str, Any]] = {
    "cdni": {"hidden_size": 64},
    "local": {"hidden_size": 64, "dni_params": {"num_layers": 1}},
}


def perceptron(depth: int, hidden: int) -> nn.Sequential:
    """``depth`` times [Linear, BatchNorm, ReLU], and a linear layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    for size in [28 * 28, *[hidden] * (depth - 1)]:
        layers += [nn.Linear(size, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, _CLASSES))


def convolutional(hidden: int) -> nn.Sequential:
    """Two convolutions with pooling, one fully connected layer, and a linear one."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(32 * 7 * 7, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, _CLASSES))


class MNISTTask(Task):
    """The context is the label."""

    context_size = _CLASSES
    chance = 1 - 1 / _CLASSES

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._train = _read(args, train=True)
        self._test = _read(args, train=False)
        self._steps = len(self._train[0]) // args.batch
        if not self._steps:
            raise TaskError(
                f"--batch {args.batch} is larger than the {len(self._train[0])} samples"
            )
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self.total = (args.epochs or 1) * self._steps

    def network(self) -> nn.Module:
        """By ``--network``."""
        if self._args.network == "cnn":
            return convolutional(self._args.hidden)
        return perceptron(self._args.depth, self._args.hidden)

    def batch(self, seed: int, step: int) -> Batch:
        """Each epoch in an order of its own; what does not fill a batch is left out."""
        epoch, place = divmod(step, self._steps)
        if self._order is None or self._order[0] != (seed, epoch):
            # Negative steps are for what belongs to no one step.
            order = torch.randperm(len(self._train[0]), generator=generator(seed, -2 - epoch))
            self._order = (seed, epoch), order.to(self._args.device)
        chosen = self._order[1][place * self._args.batch : (place + 1) * self._args.batch]
        images, labels = (tensor[chosen] for tensor in self._train)
        return Batch(images, labels, labels)

    def test(self) -> Iterable[Batch]:
        """The test set."""
        for images, labels in zip(*(t.split(_TEST_BATCH) for t in self._test), strict=True):
            yield Batch(images, labels, labels)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output, target)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """The fraction of wrong digits."""
        return (output.argmax(1) != batch.target).float().mean()


def _read(args: argparse.Namespace, train: bool) -> tuple[Tensor, Tensor]:
    """Normalised images (count, 1, 28, 28) and labels (count,), on the device."""
    if args.data is None:
        raise TaskError("where is MNIST? give --data DIR (or set DNI_DATA), with --download once")
    # Takes a second to import, and error messages need not wait for it.
    from .vision import torchvision

    try:
        found = torchvision.datasets.MNIST(str(args.data), train=train, download=args.download)
    except Exception as error:  # damaged files and failed downloads raise almost anything
        raise TaskError(
            f"no MNIST in --data {args.data} (--download fetches it): "
            f"{error or 'its files are damaged'}"
        ) from error
    images = found.data.to(args.device).float().div_(255).sub_(_MEAN).div_(_DEVIATION)
    return images.unsqueeze(1), found.targets.to(args.device)


def recipe(args: argparse.Namespace, mode: str) -> Recipe:
    """A mode with its own defaults."""
    lr = _LRS[mode]
    dni: dict[str, Any] = dict(_PLAIN) if mode == "dni" else {}
    if args.network == "mlp" and args.depth > _SHALLOW:
        dni = {**dni, **_DEEP.get(mode, {})}
        lr = _DEEP_LR if mode == "cdni" else lr
    if args.update_probability < 1:
        lr = _SPARSE_LRS.get(mode, lr)
    if mode != "bp":
        dni |= {"grad_lr": args.grad_lr, "layers": args.layers, "unlock": args.unlock}
        dni["update_probability"] = args.update_probability
    return Recipe(mode, lr if args.lr is None else args.lr, None, dni)


def _share(text: str) -> float:
    share: float = options.number(float, 0, above=True)(text)
    if share > 1:
        raise argparse.ArgumentTypeError(f"must be a number of at most 1, not {text!r}")
    return share


def _make(args: argparse.Namespace) -> tuple[MNISTTask, list[Recipe]]:
    task = MNISTTask(args)
    if args.steps is None and args.epochs is not None:
        args.steps = task.total
    return task, [recipe(args, mode) for mode in args.mode]


def parser_for(task: str, description: str, **options_: Any) -> options.Parser:
    """The options of every task on MNIST."""
    parser = options.shared(task, description, batch=256, every=78, length="one epoch", **options_)
    add = parser.add_argument
    add("--epochs", type=options.number(int, 1), help="instead of --steps (default: 1)")
    add("--network", choices=["mlp", "cnn"], default="mlp", help="default: %(default)s")
    add("--hidden", type=options.number(int, 1), default=256,
        help="width of the fully connected layers (default: %(default)s)")  # fmt: skip
    folder = os.environ.get("DNI_DATA")
    add("--data", type=Path, default=Path(folder) if folder else None, metavar="DIR",
        help="folder that holds MNIST/ (default: the environment variable DNI_DATA)")  # fmt: skip
    add("--download", action="store_true", help="fetch MNIST into --data where it is missing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = parser_for("mnist", __doc__)
    add = parser.add_argument
    add("--depth", type=options.number(int, 1), default=3,
        help="hidden layers of the mlp (default: %(default)s)")  # fmt: skip
    add("--layers", type=lambda text: text.split(","), metavar="NAME,...",
        help="modules to cut at; 6 is in the middle (default: all hidden layers)")  # fmt: skip
    add("--unlock", choices=["update", "full"], default="update",
        help="of the backward pass, or of the forward pass too (default: %(default)s)")  # fmt: skip
    add("--update-probability", type=_share, default=1.0, metavar="P",
        help="share of the steps that each part learns in, at random (default: all)")  # fmt: skip
    return training.main(parser, _make, argv)


if __name__ == "__main__":
    sys.exit(main())
