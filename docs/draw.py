"""Write the drawings of the documentation: ``python docs/draw.py`` makes ``docs/images/*.svg``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from draw_steps import STEPS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

Point = tuple[float, float]

_ACTIVATION, _TRUE, _SYNTHETIC, _CUT = "#333333", "#c0392b", "#2471a3", "#777777"
_PART, _SYNTHESIZER = "#f2f2f2", "#d6e6f2"
_BOX_HEIGHT = 0.7
_INCHES = 0.85  # length of one unit of the axes
_FIRST, _MIDDLE, _SECOND = 2.0, 4.5, 7.0  # x of part 1, of the cut and of part 2
_RIGHT = 9.0  # x at which the arrow to the loss ends


def _box(ax: Axes, at: Point, text: str, synthesizer: bool = False, width: float = 1.5) -> None:
    """Draw a box with a text around a centre."""
    x, y = at
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - _BOX_HEIGHT / 2),
            width,
            _BOX_HEIGHT,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=_SYNTHESIZER if synthesizer else _PART,
            edgecolor=_SYNTHETIC if synthesizer else _ACTIVATION,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=10)


def _arrow(ax: Axes, start: Point, end: Point, color: str, dashed: bool = False) -> None:
    """Draw an arrow; a dashed one carries a value that only trains a synthesizer."""
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            color=color,
            linestyle="--" if dashed else "-",
            shrinkA=0,
            shrinkB=0,
        )
    )


def _label(ax: Axes, at: Point, text: str, color: str, side: str = "center") -> None:
    """Write a text; ``side`` says which side of it stands at the point."""
    ax.text(*at, text, color=color, ha=side, va="center", fontsize=9)


def _cut(ax: Axes, x: float, low: float, high: float, text: str = "cut") -> None:
    """Draw a vertical dotted line with a text above it."""
    ax.plot([x, x], [low, high], color=_CUT, linestyle=":", linewidth=1.5, zorder=0)
    _label(ax, (x, high + 0.18), text, _CUT)


def _parts(ax: Axes, first: str = "part 1", second: str = "part 2") -> None:
    """Draw the two parts, the input of the first one and the loss of the second one."""
    _box(ax, (_FIRST, 0), first)
    _box(ax, (_SECOND, 0), second)
    _arrow(ax, (0, 0.15), (_FIRST - 0.77, 0.15), _ACTIVATION)
    _label(ax, (0.55, -0.1), "input x", _ACTIVATION)
    _arrow(ax, (_SECOND + 0.77, 0.15), (_RIGHT, 0.15), _ACTIVATION)
    _label(ax, (_RIGHT - 0.5, 0.38), "loss", _ACTIVATION)
    _arrow(ax, (_RIGHT, -0.15), (_SECOND + 0.77, -0.15), _TRUE)


def _forward_prediction(ax: Axes, text: str) -> None:
    """Draw a synthesizer above the cut that predicts the activation from the input."""
    _box(ax, (_MIDDLE, 1.5), text, synthesizer=True)
    _arrow(ax, (0.55, 0.15), (_MIDDLE - 0.77, 1.5), _ACTIVATION)
    _label(ax, (1.75, 1.15), "input x (trigger)", _ACTIVATION)
    _arrow(ax, (_FIRST + 0.77, 0.15), (4.0, 1.13), _ACTIVATION, dashed=True)
    _label(ax, (3.9, 0.35), "activation h\n(target)", _ACTIVATION)
    _arrow(ax, (_MIDDLE + 0.77, 1.5), (_SECOND, 0.37), _SYNTHETIC)
    _label(ax, (6.35, 1.15), "synthetic activation", _SYNTHETIC, "left")


def _backward_prediction(ax: Axes, text: str) -> None:
    """Draw a synthesizer below the cut that predicts the gradient."""
    _box(ax, (_MIDDLE, -1.5), text, synthesizer=True)
    _arrow(ax, (_MIDDLE - 0.77, -1.5), (_FIRST, -0.37), _SYNTHETIC)
    _label(ax, (2.3, -1.15), "synthetic gradient", _SYNTHETIC, "right")
    _arrow(ax, (_SECOND, -0.37), (_MIDDLE + 0.77, -1.5), _TRUE, dashed=True)
    _label(ax, (6.35, -1.15), "true gradient (target)", _TRUE, "left")


def backpropagation(ax: Axes) -> None:
    """Draw backpropagation: the parts pass the activation and the gradient directly."""
    _parts(ax)
    _arrow(ax, (_FIRST + 0.77, 0.15), (_SECOND - 0.77, 0.15), _ACTIVATION)
    _label(ax, (_MIDDLE, 0.35), "activation h", _ACTIVATION)
    _arrow(ax, (_SECOND - 0.77, -0.15), (_FIRST + 0.77, -0.15), _TRUE)
    _label(ax, (_MIDDLE, -0.37), "true gradient", _TRUE)


def update_unlock(ax: Axes) -> None:
    """Draw the update unlock: a synthesizer predicts the gradient."""
    _cut(ax, _MIDDLE, -2.1, 0.7)
    _parts(ax)
    _arrow(ax, (_FIRST + 0.77, 0.15), (_SECOND - 0.77, 0.15), _ACTIVATION)
    _label(ax, (3.6, 0.35), "activation h", _ACTIVATION)
    _backward_prediction(ax, "synthesizer")
    _arrow(ax, (4.1, 0.15), (4.1, -1.13), _ACTIVATION)
    _label(ax, (4.0, -0.4), "h (trigger)", _ACTIVATION, "right")


def forward_alone(ax: Axes) -> None:
    """Draw a forward interface alone: no gradient reaches part 1."""
    _cut(ax, _MIDDLE, -0.6, 2.1)
    _parts(ax)
    _forward_prediction(ax, "synthesizer")
    _arrow(ax, (_SECOND - 0.77, -0.15), (5.4, -0.15), _TRUE)
    ax.plot(5.2, -0.15, marker="x", color=_TRUE, markersize=9)
    _label(ax, (5.5, -0.42), "no gradient", _TRUE)


def full_unlock(ax: Axes) -> None:
    """Draw the full unlock: two synthesizers predict the activation and the gradient."""
    _cut(ax, _MIDDLE, -2.1, 2.1)
    _parts(ax)
    _forward_prediction(ax, "forward\nsynthesizer")
    _backward_prediction(ax, "backward\nsynthesizer")
    _arrow(ax, (_FIRST + 0.77, -0.15), (4.0, -1.13), _ACTIVATION)
    _label(ax, (3.9, -0.35), "activation h\n(trigger)", _ACTIVATION)


def halves(ax: Axes) -> None:
    """Draw two halves of a network, each with a copy of the interface."""
    _cut(ax, _MIDDLE, -1.95, 0.7)
    _parts(ax, "first half", "second half")
    _box(ax, (3.4, -1.5), "interface\n(copy A)", synthesizer=True, width=1.2)
    _box(ax, (5.6, -1.5), "interface\n(copy B)", synthesizer=True, width=1.2)
    _arrow(ax, (2.4, -0.37), (3.2, -1.13), _ACTIVATION)
    _label(ax, (2.95, -0.62), "send(h, x)", _ACTIVATION, "left")
    _arrow(ax, (2.78, -1.5), (1.7, -0.37), _SYNTHETIC)
    _label(ax, (2.1, -1.15), "synthetic gradient", _SYNTHETIC, "right")
    _arrow(ax, (5.8, -1.13), (6.6, -0.37), _SYNTHETIC)
    _label(ax, (6.05, -0.62), "receive(x)", _SYNTHETIC, "right")
    _arrow(ax, (7.3, -0.37), (6.22, -1.5), _TRUE, dashed=True)
    _label(ax, (6.9, -1.15), "true gradient (target)", _TRUE, "left")
    _arrow(ax, (4.02, -1.4), (4.98, -1.4), _SYNTHETIC, dashed=True)
    _arrow(ax, (4.98, -1.6), (4.02, -1.6), _SYNTHETIC, dashed=True)
    _label(ax, (_MIDDLE, -2.15), "the copies are synchronised from time to time", _SYNTHETIC)


def recurrent(ax: Axes) -> None:
    """Draw one window of a recurrent network that is trained on windows."""
    for i, x in enumerate((1.2, 3.0, 4.8)):
        _box(ax, (x, 0), f"step {i + 1}", width=1.0)
        _arrow(ax, (x, -1.0), (x, -0.37), _ACTIVATION)
        _label(ax, (x + 0.22, -0.8), f"x{i + 1}", _ACTIVATION)
        _arrow(ax, (x, 0.37), (x, 0.9), _ACTIVATION)
        _label(ax, (x, 1.05), "loss", _ACTIVATION)
    for x in (1.72, 3.52):
        _arrow(ax, (x, 0.12), (x + 0.76, 0.12), _ACTIVATION)
        _arrow(ax, (x + 0.76, -0.12), (x, -0.12), _TRUE)
    _cut(ax, 0.0, -1.2, 1.2, "start of the window")
    _cut(ax, 6.2, -1.2, 1.2, "end of the window")
    _arrow(ax, (-1.3, 0.12), (0.68, 0.12), _ACTIVATION)
    _label(ax, (-0.75, 0.32), "state", _ACTIVATION)
    _arrow(ax, (0.68, -0.12), (-1.3, -0.95), _TRUE, dashed=True)
    _label(ax, (-0.85, -1.2), "true gradient\n(target)", _TRUE)
    _arrow(ax, (5.32, 0.12), (8.6, 0.12), _ACTIVATION)
    _label(ax, (7.0, 0.32), "state", _ACTIVATION)
    _box(ax, (7.6, -1.5), "synthesizer", synthesizer=True)
    _arrow(ax, (7.6, 0.12), (7.6, -1.13), _ACTIVATION)
    _label(ax, (7.7, -0.5), "state (trigger)", _ACTIVATION, "left")
    _arrow(ax, (6.83, -1.5), (5.32, -0.12), _SYNTHETIC)
    _label(ax, (6.0, -1.45), "synthetic gradient", _SYNTHETIC, "right")


class Drawing:
    """A drawing and the part of the plane that it fills.

    Args:
        draw: Draws it.
        low: Lowest y that it uses.
        high: Highest y that it uses.
        left: Lowest x that it uses.
    """

    def __init__(
        self, draw: Callable[[Axes], None], low: float, high: float, left: float = -0.3
    ) -> None:
        self.draw = draw
        self.low, self.high, self.left = low, high, left

    def save(self, file: Path) -> None:
        """Write the drawing as SVG."""
        right = _RIGHT + 0.3
        size = _INCHES * (right - self.left), _INCHES * (self.high - self.low)
        figure = plt.figure(figsize=size)
        ax = figure.add_axes((0, 0, 1, 1))
        self.draw(ax)
        ax.set_xlim(self.left, right)
        ax.set_ylim(self.low, self.high)
        ax.axis("off")
        figure.savefig(file, metadata={"Date": None, "Creator": None})
        plt.close(figure)


DRAWINGS = {
    "backpropagation": Drawing(backpropagation, -0.6, 0.6),
    "update_unlock": Drawing(update_unlock, -2.2, 1.1),
    "forward_alone": Drawing(forward_alone, -0.8, 2.5),
    "full_unlock": Drawing(full_unlock, -2.2, 2.5),
    "halves": Drawing(halves, -2.4, 1.1),
    "recurrent": Drawing(recurrent, -2.0, 1.6, left=-1.6),
    **STEPS,
}


def main(folder: Path) -> None:
    """Write all drawings into a folder."""
    # Texts are stored as text, and equal drawings give equal files.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pytorch_dni"})
    folder.mkdir(exist_ok=True)
    for name, drawing in DRAWINGS.items():
        drawing.save(folder / f"{name}.svg")


if __name__ == "__main__":
    main(Path(__file__).parent / "images")
