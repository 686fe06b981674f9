"""MNIST task: classify handwritten digits with a fully connected or a convolutional network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from . import comparison, comparison_options, options
from .errors import TaskError
from .modes import Configuration, DEFAULT_MODES, MODES
from .task import Batch, step_generator, Task

CLASSES = 10
PIXELS = 28 * 28
_MEAN, _STD = 0.1307, 0.3081  # of the pixels of the training images
_TEST_BATCH_SIZE = 2500

_LEARNING_RATE = 3e-4


def perceptron(depth: int, hidden: int) -> nn.Sequential:
    """Build ``depth`` times [Linear, BatchNorm, ReLU], and a linear layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    for size in [PIXELS, *[hidden] * (depth - 1)]:
        layers += [nn.Linear(size, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


def convolutional(hidden: int) -> nn.Sequential:
    """Build two convolutions with pooling, a fully connected layer, and a linear layer."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in ((1, 16), (16, 32)):
        convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(32 * 7 * 7, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


class MNISTTask(Task):
    """Classification of MNIST digits; the context is the label.

    Args:
        args: Options of the program.
        depth: Number of hidden layers of the fully connected network.

    Raises:
        TaskError: The data cannot be read, or a batch is larger than the training set.
    """

    context_size = CLASSES
    chance_error = 1 - 1 / CLASSES

    def __init__(self, args: argparse.Namespace, depth: int) -> None:
        self._network, self._hidden, self._depth = args.network, args.hidden, depth
        self._batch_size, self._device = args.batch, args.device
        self._training_set = _load(args, train=True)
        self._test_set = _load(args, train=False)
        samples = len(self._training_set[0])
        self._steps_per_epoch = samples // args.batch
        if not self._steps_per_epoch:
            raise TaskError(f"--batch {args.batch} is larger than the {samples} training samples")
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self.default_steps = (args.epochs or 1) * self._steps_per_epoch

    def build_network(self) -> nn.Module:
        """Build the network that ``--network`` names."""
        if self._network == "cnn":
            return convolutional(self._hidden)
        return perceptron(self._depth, self._hidden)

    def training_batch(self, seed: int, step: int) -> Batch:
        """Return a batch; samples of an epoch that do not fill a batch are left out."""
        epoch, position = divmod(step, self._steps_per_epoch)
        first = position * self._batch_size
        chosen = self._epoch_order(seed, epoch)[first : first + self._batch_size]
        images, labels = (tensor[chosen] for tensor in self._training_set)
        return Batch(images, labels, labels)

    def _epoch_order(self, seed: int, epoch: int) -> Tensor:
        """Return the random order of the samples in an epoch; keep it for the next step."""
        if self._order is None or self._order[0] != (seed, epoch):
            # Training steps are not negative, so no step uses these random numbers.
            random = step_generator(seed, -2 - epoch)
            order = torch.randperm(len(self._training_set[0]), generator=random)
            self._order = (seed, epoch), order.to(self._device)
        return self._order[1]

    def test_batches(self) -> Iterable[Batch]:
        """Return the test set."""
        parts = (tensor.split(_TEST_BATCH_SIZE) for tensor in self._test_set)
        for images, labels in zip(*parts, strict=True):
            yield Batch(images, labels, labels)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy."""
        return F.cross_entropy(output, target)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """Compute the fraction of wrong labels."""
        return (output.argmax(1) != batch.target).float().mean()


def _load(args: argparse.Namespace, train: bool) -> tuple[Tensor, Tensor]:
    """Return normalised images ``(count, 1, 28, 28)`` and labels ``(count,)`` on the device."""
    if args.data is None:
        raise TaskError("where is MNIST? give --data DIR (or set DNI_DATA), with --download once")
    # The import takes a second, and errors before this point need not wait for it.
    from .torchvision_import import torchvision

    try:
        found = torchvision.datasets.MNIST(str(args.data), train=train, download=args.download)
    except Exception as error:  # damaged files and failed downloads raise almost any exception
        raise TaskError(
            f"no MNIST in --data {args.data} (--download fetches it): "
            f"{error or 'its files are damaged'}"
        ) from error
    images = found.data.to(args.device).float().div_(255).sub_(_MEAN).div_(_STD)
    return images.unsqueeze(1), found.targets.to(args.device)


def configuration(args: argparse.Namespace, mode: str) -> Configuration:
    """Return the row of a mode; all have the same settings.

    Raises:
        TaskError: The mode does not know the full unlock.
    """
    if mode == "bp":
        return Configuration(mode, args.lr)
    dni_arguments: dict[str, Any] = {
        "grad_lr": args.grad_lr,
        "layers": args.layers,
        "update_probability": args.update_probability,
    }
    if args.unlock == "full":
        if mode in ("feedback", "exact"):
            raise TaskError(
                f"--unlock full: --mode {mode} predicts from the error at the output, for which "
                "parts wait: leave it out"
            )
        dni_arguments["unlock"] = args.unlock
    return Configuration(mode, args.lr, None, dni_arguments)


def mnist_parser(
    task: str,
    description: str | None,
    modes: Mapping[str, str] = MODES,
    default_modes: Sequence[str] | None = None,
) -> options.Parser:
    """Return a parser with the options of all tasks on MNIST.

    Args:
        task: Name of the task's module.
        description: Description of the task.
        modes: Names and descriptions of the modes that can be compared.
        default_modes: Default of ``--mode``; None for all.
    """
    parser = comparison_options.comparison_parser(
        task,
        description,
        batch=256,
        every=78,
        default_length="one epoch",
        lr=_LEARNING_RATE,
        modes=modes,
        default_modes=default_modes,
    )
    add = parser.add_argument
    parser.add_integer("--epochs", None, "training epochs, instead of --steps (default: 1)")
    add(
        "--network",
        choices=["mlp", "cnn"],
        default="mlp",
        help="fully connected (mlp) or convolutional (cnn) network (default: %(default)s)",
    )
    parser.add_integer("--hidden", 256, "width of the fully connected layers")
    add(
        "--data",
        type=Path,
        default=options.data_folder(),
        metavar="DIR",
        help="folder that holds MNIST/ (default: the environment variable DNI_DATA)",
    )
    add("--download", action="store_true", help="download MNIST to --data if it is missing there")
    return parser


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = mnist_parser("mnist", __doc__, default_modes=DEFAULT_MODES)
    add = parser.add_argument
    parser.add_integer("--depth", 3, "number of hidden layers of the mlp")
    add(
        "--layers",
        type=lambda text: text.split(","),
        metavar="NAME,...",
        help="modules to cut after, such as 6 for the middle one of three (default: all)",
    )
    add(
        "--unlock",
        choices=["full"],
        help="predict activations as well, so that parts need not wait for earlier layers either "
        "(modes dni, cdni, local-error and local)",
    )
    add(
        "--update-probability",
        type=_probability,
        default=1.0,
        metavar="P",
        help="probability that a part learns in a step (default: %(default)s)",
    )
    return parser


def _probability(text: str) -> float:
    probability: float = options.number(float, 0, exclusive=True)(text)
    if probability > 1:
        raise argparse.ArgumentTypeError(f"must be a number of at most 1, not {text!r}")
    return probability


def _prepare(args: argparse.Namespace) -> tuple[MNISTTask, list[Configuration]]:
    return MNISTTask(args, args.depth), [configuration(args, mode) for mode in args.mode]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return comparison.run(parser(), _prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
