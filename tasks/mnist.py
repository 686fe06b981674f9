"""MNIST task: classify handwritten digits with a fully connected or a convolutional network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from . import comparison, comparison_options, options
from .errors import TaskError
from .image_data import ImageSet
from .image_task import add_image_options, check_data_option, ImageTask
from .modes import Configuration, MODES

CLASSES = 10
PIXELS = 28 * 28
_MEAN, _STD = 0.1307, 0.3081  # of the pixels of the training images

# Without a context the predictions are worse: the network must learn more slowly, and the
# synthesizers must be wider.
_LEARNING_RATES = {"bp": 3e-4, "dni": 4e-5, "cdni": 3e-4, "local": 6e-4}
_DNI_HIDDEN_SIZE = 64
# In more than three layers, errors add up: each synthesizer learns from the prediction of the next.
# A slower network and a wider synthesizer help; a local loss needs a head with a hidden layer.
_MAX_SHALLOW_DEPTH = 3
_DEEP_LEARNING_RATES = {**_LEARNING_RATES, "cdni": 2e-4}
_DEEP_ARGUMENTS: dict[str, dict[str, Any]] = {
    "cdni": {"hidden_size": 64},
    "local": {"hidden_size": 64, "dni_params": {"num_layers": 1}},
}
# If parts learn in fewer steps, each step must change them more.
_SPARSE_LEARNING_RATES = {"dni": 1e-4, "cdni": 1e-3, "local": 1e-3}


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


class MNISTTask(ImageTask):
    """Classification of MNIST digits.

    Args:
        args: Options of the program.
        depth: Number of hidden layers of the fully connected network.

    Raises:
        TaskError: The data cannot be read, or a batch is larger than the training set.
    """

    chance_error = 1 - 1 / CLASSES

    def __init__(self, args: argparse.Namespace, depth: int) -> None:
        self._network, self._hidden, self._depth = args.network, args.hidden, depth
        check_data_option(args, "MNIST")
        super().__init__(args, _load(args, train=True), _load(args, train=False), CLASSES)

    def build_network(self) -> nn.Module:
        """Build the network that ``--network`` names."""
        if self._network == "cnn":
            return convolutional(self._hidden)
        return perceptron(self._depth, self._hidden)


def _load(args: argparse.Namespace, train: bool) -> ImageSet:
    """Return normalised images ``(count, 1, 28, 28)`` and labels on the device."""
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
    """Return the row of a mode, with the defaults that suit mode and network."""
    deep = args.network == "mlp" and args.depth > _MAX_SHALLOW_DEPTH
    lr = (_DEEP_LEARNING_RATES if deep else _LEARNING_RATES)[mode]
    if args.update_probability < 1:
        lr = _SPARSE_LEARNING_RATES.get(mode, lr)
    if args.lr is not None:
        lr = args.lr
    if mode == "bp":
        return Configuration(mode, lr)
    dni_arguments: dict[str, Any] = {
        "grad_lr": args.grad_lr,
        "layers": args.layers,
        "unlock": args.unlock,
        "update_probability": args.update_probability,
    }
    if mode == "dni":
        dni_arguments["hidden_size"] = _DNI_HIDDEN_SIZE
    if deep:
        dni_arguments |= _DEEP_ARGUMENTS.get(mode, {})
    return Configuration(mode, lr, None, dni_arguments)


def mnist_parser(
    task: str, description: str | None, modes: Mapping[str, str] = MODES
) -> options.Parser:
    """Return a parser with the options of all tasks on MNIST.

    Args:
        task: Name of the task's module.
        description: Description of the task.
        modes: Names and descriptions of the modes that can be compared.
    """
    parser = comparison_options.comparison_parser(
        task, description, batch=256, every=78, default_length="one epoch", modes=modes
    )
    add_image_options(parser, "MNIST", "MNIST/")
    parser.add_argument(
        "--network",
        choices=["mlp", "cnn"],
        default="mlp",
        help="fully connected (mlp) or convolutional (cnn) network (default: %(default)s)",
    )
    parser.add_integer("--hidden", 256, "width of the fully connected layers")
    return parser


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = mnist_parser("mnist", __doc__)
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
        choices=["update", "full"],
        default="update",
        help="what parts need not wait for: later layers (update), or earlier layers too (full) "
        "(default: %(default)s)",
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
