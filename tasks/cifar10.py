"""CIFAR-10 task: classify colour images with a convolutional network.

All modes have the same settings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn, Tensor

from . import comparison, comparison_options, options
from .image_cache import read_images
from .image_data import balanced_subset, ImageData, random_crops_and_flips
from .image_files import find_source
from .image_networks import NETWORKS
from .image_task import add_image_options, check_data_option, ImageTask
from .modes import Configuration
from .task import step_generator

# Of the pixels of the training images, for each colour.
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_PADDING = 4


class CIFAR10Task(ImageTask):
    """Classification of CIFAR-10 images, or of other images of 32 x 32 pixels.

    Args:
        args: Options of the program.
        data: The images, as uint8.

    Raises:
        TaskError: The training set has too few images.
    """

    test_batch_size = 250  # activations of more images do not fit into the caches of a CPU

    def __init__(self, args: argparse.Namespace, data: ImageData) -> None:
        self._classes, training = data.classes, data.training
        training = balanced_subset(training, args.train_samples, data.classes, "--train-samples")
        super().__init__(args, training, data.test, data.classes)
        self._network = NETWORKS[args.network]
        self._augment = not args.no_augment
        self.layers = self._network.layers if args.parts is None else args.parts
        counts = torch.bincount(data.test.labels)
        self.chance_error = 1 - (counts.max() / counts.sum()).item()
        self.summary_note = f"{len(training.labels)} training images"

    def build_network(self) -> nn.Module:
        """Build the network that ``--network`` names."""
        return self._network.build(len(self._classes))

    def training_input(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Return normalised random crops and flips, unless ``--no-augment`` is given."""
        if self._augment:
            images = random_crops_and_flips(images, _PADDING, step_generator(seed, step))
        return normalise(images)

    def test_input(self, images: Tensor) -> Tensor:
        """Return the normalised images."""
        return normalise(images)


def normalise(images: Tensor) -> Tensor:
    """Return uint8 images as floats with mean 0 and standard deviation 1 in each colour."""
    mean, std = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (_MEAN, _STD)
    )
    return images.float().div_(255).sub_(mean).div_(std)


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = comparison_options.equal_comparison_parser(
        "cifar10", __doc__, batch=128, every=390, default_length="one epoch"
    )
    add_image_options(parser, "CIFAR-10", "CIFAR-10, or has a folder cifar10/ that does")
    add = parser.add_argument
    add(
        "--network",
        choices=[*NETWORKS],
        default="cnn",
        help="three convolutions (cnn), a residual network of six blocks (resnet), or eight "
        "convolutions (vgg) (default: %(default)s)",
    )
    parser.add_integer(
        "--train-samples",
        None,
        "training images, of each class equally many (default: all)",
        metavar="N",
    )
    add("--no-augment", action="store_true", help="train without random crops and flips")
    add(
        "--cache",
        type=Path,
        metavar="FILE",
        help="file that keeps the decoded images for later runs",
    )
    return parser


def _prepare(args: argparse.Namespace) -> tuple[CIFAR10Task, list[Configuration]]:
    check_data_option(args, "CIFAR-10")
    data = read_images(find_source(args.data, args.download), args.cache)
    return CIFAR10Task(args, data), comparison_options.equal_configurations(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return comparison.run(parser(), _prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
