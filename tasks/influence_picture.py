"""The picture of influences: wrong test digits, and training digits that helped and harmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .image_data import ImageSet
from .plots import new_figure, to_png


class Row(NamedTuple):
    """A wrong test digit, and the training digits with the largest influence on its loss.

    Attributes:
        image: The test digit ``(1, height, width)``.
        label: Its label.
        predicted: What the network takes it for.
        helpful: Numbers of the training digits that lowered its loss most.
        harmful: Numbers of those that raised it most.
    """

    image: Tensor
    label: int
    predicted: int
    helpful: list[int]
    harmful: list[int]


def draw(training: ImageSet, relabelled: Tensor, rows: Sequence[Row]) -> bytes:
    """Draw a row for each test digit as PNG; digits with a planted label have a red title.

    Args:
        training: The training digits.
        relabelled: Whether the label of each is planted.
        rows: The rows.
    """
    count = 1 + max((len(row.helpful) + len(row.harmful) for row in rows), default=0)
    figure = new_figure(0.85 * count, 1.05 * max(len(rows), 1) + 0.4)
    if rows:
        panels = figure.subplots(len(rows), count, squeeze=False)
        for line, row in zip(panels, rows, strict=True):
            _show(line[0], row.image, f"{row.label}, taken for {row.predicted}", "tab:blue")
            for axes, number in zip(line[1:], [*row.helpful, *row.harmful], strict=True):
                colour = "tab:red" if relabelled[number] else "black"
                _show(axes, training.images[number], str(int(training.labels[number])), colour)
    figure.suptitle("wrong test digit | five most helpful | five most harmful", fontsize=9)
    return to_png(figure)


def _show(axes: Any, image: Tensor, title: str, colour: str) -> None:
    axes.imshow(image[0].cpu().numpy(), cmap="gray_r")
    axes.set_title(title, fontsize=7, color=colour)
    axes.set_axis_off()
