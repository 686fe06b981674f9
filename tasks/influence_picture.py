"""The picture of influences: wrong test digits, and training digits that helped and harmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .image_data import ImageSet
from .plots import new_figure, to_png

_TEST_DIGIT, _PLANTED = "#0072b2", "#d55e00"


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
    """Draw a row for each test digit as PNG.

    Planted labels are red and bold, with an asterisk.

    Args:
        training: The training digits.
        relabelled: Whether the label of each is planted.
        rows: The rows.
    """
    helpful = max((len(row.helpful) for row in rows), default=0)
    harmful = max((len(row.harmful) for row in rows), default=0)
    # A margin, the test digit, and gaps before the helpful digits and the harmful ones.
    widths = [0.3, 1.0, 0.3, *[1.0] * helpful, 0.3, *[1.0] * harmful]
    first, second = 3, helpful + 4
    figure = new_figure(0.76 * sum(widths), 1.0 * max(len(rows), 1) + 0.8)
    # The second line is the place of the headings.
    figure.suptitle("labels of training digits: * planted\n", fontsize=10)
    if rows:
        panels = figure.subplots(
            len(rows), len(widths), squeeze=False, gridspec_kw={"width_ratios": widths}
        )
        for axes in panels.flat:
            axes.set_axis_off()
        for line, row in zip(panels, rows, strict=True):
            title = f"{row.label}, taken for {row.predicted}"
            _show(line[1], row.image, title, color=_TEST_DIGIT)
            for begin, numbers in ((first, row.helpful), (second, row.harmful)):
                for axes, number in zip(line[begin:], numbers, strict=False):
                    _show_training_digit(axes, training, relabelled, number)
        _head(panels[0][1], "wrong test digit")
        if helpful:
            _head(panels[0][first + helpful // 2], f"{helpful} most helpful")
        if harmful:
            _head(panels[0][second + harmful // 2], f"{harmful} most harmful")
    return to_png(figure)


def _show_training_digit(axes: Any, digits: ImageSet, relabelled: Tensor, number: int) -> None:
    label = str(int(digits.labels[number]))
    if relabelled[number]:
        _show(axes, digits.images[number], f"{label}*", color=_PLANTED, weight="bold")
    else:
        _show(axes, digits.images[number], label, color="black")


def _show(axes: Any, image: Tensor, title: str, **style: str) -> None:
    axes.imshow(image[0].cpu().numpy(), cmap="gray_r")
    # Columns keep their width, whatever the length of the title.
    axes.set_title(title, fontsize=8.5, pad=3, **style).set_in_layout(False)


def _head(axes: Any, text: str) -> None:
    """Write the heading of a group of columns above the title of one of its panels."""
    offset = {"xytext": (0, 16), "textcoords": "offset points"}
    head = axes.annotate(
        text, (0.5, 1), xycoords="axes fraction", **offset, ha="center", va="bottom", fontsize=10
    )
    head.set_in_layout(False)
