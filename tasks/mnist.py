"""MNIST task: classify handwritten digits with a fully connected or a convolutional network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from . import comparison, comparison_options, example_digits, files, options
from .argument_types import number
from .errors import TaskError
from .image_data import ImageSet
from .image_task import add_image_options, check_data_option, ImageTask
from .modes import Configuration, DEFAULT_MODES, MODES
from .task import Task

CLASSES = 10
PIXELS = 28 * 28
_MEAN, _STD = 0.1307, 0.3081  # of the pixels of the training images

LEARNING_RATE = 3e-4
_NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


def perceptron(
    depth: int, hidden: int, norm: str = "batch", activation: str = "relu"
) -> nn.Sequential:
    """Build ``depth`` times [Linear, normalisation, activation], and a linear layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    for size in [PIXELS, *[hidden] * (depth - 1)]:
        layers.append(nn.Linear(size, hidden))
        if norm != "none":
            layers.append(_NORMS[norm](hidden))
        layers.append(_ACTIVATIONS[activation]())
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


def convolutional(hidden: int) -> nn.Sequential:
    """Build two convolutions with pooling, a fully connected layer, and a linear layer."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in ((1, 16), (16, 32)):
        convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(32 * 7 * 7, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


class MNISTTask(ImageTask):
    """Classification of MNIST digits.

    Args:
        args: Options of the program.
        depth: Number of hidden layers of the fully connected network.
        norm: Its normalisation: ``"batch"``, ``"layer"`` or ``"none"``.
        activation: Its activation function.

    Raises:
        TaskError: The data cannot be read, or a batch is larger than the training set.
    """

    chance_error = 1 - 1 / CLASSES

    def __init__(
        self,
        args: argparse.Namespace,
        depth: int,
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        self._layer = norm, activation
        self._network, self._hidden, self._depth = args.network, args.hidden, depth
        check_data_option(args, "MNIST")
        digits = [str(digit) for digit in range(CLASSES)]
        super().__init__(
            args, load_digits(args, train=True), load_digits(args, train=False), digits
        )

    def build_network(self) -> nn.Module:
        """Build the network that ``--network`` names."""
        if self._network == "cnn":
            return convolutional(self._hidden)
        return perceptron(self._depth, self._hidden, *self._layer)


def load_digits(args: argparse.Namespace, train: bool) -> ImageSet:
    """Return normalised images ``(count, 1, 28, 28)`` and labels on the device.

    Raises:
        TaskError: The data cannot be read.
    """
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
    return ImageSet(images.unsqueeze(1), found.targets.to(args.device))


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
        lr=LEARNING_RATE,
        modes=modes,
        default_modes=default_modes,
    )
    add_network_options(parser)
    return parser


def add_network_options(parser: options.Parser) -> None:
    """Add options on the data and the kind of network."""
    add_image_options(parser, "MNIST", "MNIST/")
    add_network_kind(parser)


def add_network_kind(parser: options.Parser) -> None:
    """Add options on the kind of network."""
    parser.add_argument(
        "--network",
        choices=["mlp", "cnn"],
        default="mlp",
        help="fully connected (mlp) or convolutional (cnn) network (default: %(default)s)",
    )
    parser.add_integer("--hidden", 256, "width of the fully connected layers")


def add_layer_options(parser: options.Parser) -> None:
    """Add options on the layers of the fully connected network."""
    parser.add_depth(3, "hidden layers of the mlp")
    parser.add_argument(
        "--norm",
        choices=[*_NORMS, "none"],
        default="batch",
        help="normalisation in the hidden layers of the mlp (default: %(default)s)",
    )
    parser.add_argument(
        "--activation",
        choices=[*_ACTIVATIONS],
        default="relu",
        help="activation function of the mlp (default: %(default)s)",
    )


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = mnist_parser("mnist", __doc__, default_modes=DEFAULT_MODES)
    add_layer_options(parser)
    add = parser.add_argument
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
        type=number(float, 0, 1, exclusive=True),
        default=1.0,
        metavar="P",
        help="probability that a part learns in a step (default: %(default)s)",
    )
    add(
        "--plot-examples",
        action="store_true",
        help=f"write {example_digits.FIGURE} to --out: digits whose gradients are predicted best "
        "and worst in each mode",
    )
    return parser


def _prepare(args: argparse.Namespace) -> tuple[MNISTTask, list[Configuration]]:
    if args.plot_examples and (args.out is None or {*args.mode} == {"bp"}):
        raise TaskError(
            "--plot-examples needs --out, and a --mode that predicts gradients, which bp does not"
        )
    task = MNISTTask(args, args.depth, args.norm, args.activation)
    return task, [configuration(args, mode) for mode in args.mode]


def _plot_examples(args: argparse.Namespace, task: Task, trained: comparison.Comparison) -> None:
    """Draw the best and worst digits of each mode, with the network of the first seed."""
    if not args.plot_examples:
        return
    judged = {
        run.configuration.label: example_digits.judge(run, task, trained.step)
        for run in trained.runs
        if run.configuration.mode != "bp" and run.seed == args.seed[0]
    }
    with files.reporting_write_errors(args.out):
        files.write_atomically(args.out / example_digits.FIGURE, example_digits.draw(judged))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return comparison.run(parser(), _prepare, argv, _plot_examples)


if __name__ == "__main__":
    sys.exit(main())
