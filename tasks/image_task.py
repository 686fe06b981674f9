"""The base class of the tasks on images: batches of each epoch, loss and error; and its options."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from . import options
from .errors import TaskError
from .image_data import balanced_subset, ImageSet
from .task import Batch, step_generator, Task


class ImageTask(Task):
    """Classification of images; the context is the label. Subclasses build the network.

    Args:
        args: Options of the program.
        training: The training set; it is moved to the device.
        test: The test set; it is moved to the device.
        classes: Names of the classes.

    Attributes:
        test_batch_size: Number of test images that are classified at once.

    Raises:
        TaskError: A batch is larger than the training set, or the test set has too few images.
    """

    test_batch_size: ClassVar[int] = 2500

    def __init__(
        self,
        args: argparse.Namespace,
        training: ImageSet,
        test: ImageSet,
        classes: Sequence[str],
    ) -> None:
        test = balanced_subset(test, args.test_samples, classes, "--test-samples")
        self._training = ImageSet(*(tensor.to(args.device) for tensor in training))
        self._test = ImageSet(*(tensor.to(args.device) for tensor in test))
        self._batch_size = args.batch
        samples = len(training.labels)
        self._steps_per_epoch = samples // args.batch
        if not self._steps_per_epoch:
            raise TaskError(f"--batch {args.batch} is larger than the {samples} training samples")
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self.default_steps = (args.epochs or 1) * self._steps_per_epoch
        self.context_size = len(classes)

    def training_batch(self, seed: int, step: int) -> Batch:
        """Return a batch; samples of an epoch that do not fill a batch are left out."""
        epoch, position = divmod(step, self._steps_per_epoch)
        first = position * self._batch_size
        chosen = self._epoch_order(seed, epoch)[first : first + self._batch_size]
        images, labels = (tensor[chosen] for tensor in self._training)
        return Batch(self.training_input(images, seed, step), labels, labels)

    def _epoch_order(self, seed: int, epoch: int) -> Tensor:
        """Return the random order of the samples in an epoch; keep it for the next step."""
        if self._order is None or self._order[0] != (seed, epoch):
            # Training steps are not negative, so no step uses these random numbers.
            random = step_generator(seed, -2 - epoch)
            order = torch.randperm(len(self._training.labels), generator=random)
            self._order = (seed, epoch), order.to(self._training.labels.device)
        return self._order[1]

    def test_batches(self) -> Iterable[Batch]:
        """Return the test set."""
        parts = (tensor.split(self.test_batch_size) for tensor in self._test)
        for images, labels in zip(*parts, strict=True):
            yield Batch(self.test_input(images), labels, labels)

    def training_input(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Return the input of the network for images of a training step: by default themselves."""
        return images

    def test_input(self, images: Tensor) -> Tensor:
        """Return the input of the network for test images: by default themselves."""
        return images

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy."""
        return F.cross_entropy(output, target)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """Compute the fraction of wrong labels."""
        return (output.argmax(1) != batch.target).float().mean()


def add_image_options(parser: options.Parser, data_set: str, content: str) -> None:
    """Add the options ``--epochs``, ``--test-samples``, ``--data`` and ``--download``.

    Args:
        parser: The parser.
        data_set: Name of the data set.
        content: What the folder ``--data`` holds, for the help text.
    """
    parser.add_epochs("passes over the training data, instead of --steps (default: 1)")
    samples = "test images, of each class equally many (default: all)"
    parser.add_integer("--test-samples", None, samples, metavar="N")
    add_data_options(parser, data_set, content)


def add_data_options(parser: options.Parser, data_set: str, content: str) -> None:
    """Add the options ``--data`` and ``--download``, as :func:`add_image_options` does."""
    parser.add_data(content)
    parser.add_argument(
        "--download",
        action="store_true",
        help=f"download {data_set} to --data if it is missing there",
    )


def check_data_option(args: argparse.Namespace, data_set: str) -> None:
    """Check that the option ``--data``, or ``DNI_DATA``, names a folder.

    Raises:
        TaskError: Neither does.
    """
    if args.data is None:
        raise TaskError(
            f"where is {data_set}? give --data DIR (or set DNI_DATA), with --download once"
        )
