"""Sets of images in memory: balanced subsets, and random changes of training images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import TaskError


class ImageSet(NamedTuple):
    """Images and their labels.

    Attributes:
        images: ``(count, channels, height, width)``.
        labels: ``(count,)``, integers.
    """

    images: Tensor
    labels: Tensor


class ImageData(NamedTuple):
    """Training and test set.

    Attributes:
        classes: Names of the classes; a label is the position of its name.
        training: Training set.
        test: Test set.
    """

    classes: list[str]
    training: ImageSet
    test: ImageSet


def balanced_subset(
    samples: ImageSet, count: int | None, classes: Sequence[str], option: str
) -> ImageSet:
    """Return ``count`` samples, equally many of each class; the first classes may have one more.

    The same arguments give the same samples, and a smaller subset is part of a larger one.

    Args:
        samples: The samples.
        count: How many to return; None for all.
        classes: Names of the classes.
        option: The option of the program that says how many, for the error message.

    Raises:
        TaskError: A class has too few samples.
    """
    if count is None:
        return samples
    order = torch.randperm(len(samples.labels), generator=torch.Generator().manual_seed(0))
    labels = samples.labels[order]
    chosen = []
    for label, name in enumerate(classes):
        own = order[labels == label]
        wanted = count // len(classes) + (label < count % len(classes))
        if wanted > len(own):
            raise TaskError(
                f"{option} {count} needs {wanted} images of each class, and class {name!r} "
                f"has {len(own)}"
            )
        chosen.append(own[:wanted])
    index = torch.cat(chosen).sort().values
    return ImageSet(samples.images[index], samples.labels[index])


def random_crops_and_flips(images: Tensor, padding: int, random: torch.Generator) -> Tensor:
    """Return random crops of padded images, half of them flipped horizontally.

    Args:
        images: ``(count, channels, height, width)``, on any device.
        padding: Number of pixels of value 0 that are added at each side before cropping.
        random: Random numbers, on the CPU.

    Returns:
        Images of the same shape.
    """
    count, channels, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, count, 1), generator=random)
    flipped = torch.randint(2, (count, 1), generator=random) == 1
    columns = torch.arange(width)
    columns = left + torch.where(flipped, columns.flip(0), columns)
    rows = top + torch.arange(height)
    index = rows.unsqueeze(2) * (width + 2 * padding) + columns.unsqueeze(1)
    index = index.view(count, 1, -1).to(images.device).expand(-1, channels, -1)
    padded = F.pad(images, [padding] * 4)
    return padded.flatten(2).gather(2, index).view_as(images)
