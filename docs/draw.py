"""The drawings of the interfaces page: ``python docs/draw.py`` writes them to ``docs/images``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

Point = tuple[float, float]

_ACTIVATION, _TRUE, _SYNTHETIC = "#333333", "#c0392b", "#2471a3"
_PART, _SYNTHESIZER = "#f2f2f2", "#d6e6f2"


def _box(ax: Axes, at: Point, text: str, synthesizer: bool = False, width: float = 1.5) -> None:
    x, y = at
    height = 0.7
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=_SYNTHESIZER if synthesizer else _PART,
            edgecolor=_SYNTHETIC if synthesizer else _ACTIVATION,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=10)


def _arrow(
    ax: Axes,
    start: Point,
    end: Point,
    color: str,
    label: str = "",
    at: Point | None = None,
    dashed: bool = False,
    bend: float = 0.0,
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            color=color,
            linestyle="--" if dashed else "-",
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0,
        )
    )
    x, y = at or ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.16)
    ax.text(x, y, label, color=color, ha="center", va="center", fontsize=9)


def _cut(ax: Axes, x: float, low: float, high: float) -> None:
    ax.plot([x, x], [low, high], color="#999999", linestyle=":", linewidth=1.5, zorder=0)


def _ends(ax: Axes, right: float = 8.0) -> None:
    """Input and loss, and the parts' names."""
    _arrow(ax, (0, 0.15), (1.25, 0.15), _ACTIVATION, "input x", (0.55, 0.38))
    _arrow(ax, (right - 1.25, 0.15), (right, 0.15), _ACTIVATION, "loss", (right - 0.5, 0.38))
    _arrow(ax, (right, -0.15), (right - 1.25, -0.15), _TRUE)


def backpropagation(ax: Axes) -> None:
    """Both parts in lock."""
    _ends(ax)
    _box(ax, (2, 0), "part 1")
    _box(ax, (6, 0), "part 2")
    _arrow(ax, (2.75, 0.15), (5.25, 0.15), _ACTIVATION, "activation h")
    _arrow(ax, (5.25, -0.15), (2.75, -0.15), _TRUE, "true gradient", (4, -0.36))


def update_unlock(ax: Axes) -> None:
    """The gradient is predicted."""
    _ends(ax)
    _cut(ax, 4, -1.9, 0.7)
    _box(ax, (2, 0), "part 1")
    _box(ax, (6, 0), "part 2")
    _box(ax, (4, -1.4), "synthesizer", synthesizer=True)
    _arrow(ax, (2.75, 0.15), (5.25, 0.15), _ACTIVATION, "activation h: trigger", (4, 0.33))
    _arrow(ax, (4, 0.15), (4, -1.05), _ACTIVATION)
    _arrow(ax, (3.25, -1.4), (2, -0.35), _SYNTHETIC, "synthetic gradient", (1.85, -1.15))
    _arrow(ax, (6, -0.35), (4.75, -1.4), _TRUE, "true gradient: target", (6.45, -1.15), dashed=True)


def forward_alone(ax: Axes) -> None:
    """The activation is predicted, and nothing comes back."""
    _ends(ax)
    _cut(ax, 4, -0.7, 1.9)
    _box(ax, (2, 0), "part 1")
    _box(ax, (6, 0), "part 2")
    _box(ax, (4, 1.4), "synthesizer", synthesizer=True)
    _arrow(ax, (0.55, 0.5), (3.25, 1.4), _ACTIVATION, "trigger x", (1.5, 1.2))
    _arrow(ax, (4.75, 1.4), (6, 0.35), _SYNTHETIC, "synthetic activation", (6.4, 1.1))
    _arrow(ax, (2.75, 0.15), (3.8, 1.05), _ACTIVATION, "h: target", (3.75, 0.5), dashed=True)
    ax.plot(4.35, -0.15, marker="x", color=_TRUE, markersize=9)
    _arrow(ax, (5.25, -0.15), (4.5, -0.15), _TRUE)


def full_unlock(ax: Axes) -> None:
    """Both are predicted."""
    _ends(ax)
    _cut(ax, 4, -1.9, 1.9)
    _box(ax, (2, 0), "part 1")
    _box(ax, (6, 0), "part 2")
    _box(ax, (4, 1.4), "forward", synthesizer=True)
    _box(ax, (4, -1.4), "backward", synthesizer=True)
    _arrow(ax, (0.55, 0.5), (3.25, 1.4), _ACTIVATION, "trigger x", (1.5, 1.2))
    _arrow(ax, (4.75, 1.4), (6, 0.35), _SYNTHETIC, "synthetic activation", (6.4, 1.1))
    _arrow(ax, (2.75, 0.15), (3.8, 1.05), _ACTIVATION, "h: target", (3.75, 0.5), dashed=True)
    _arrow(ax, (2.75, -0.15), (3.8, -1.05), _ACTIVATION, "trigger h", (3.75, -0.5))
    _arrow(ax, (3.25, -1.4), (2, -0.35), _SYNTHETIC, "synthetic gradient", (1.85, -1.15))
    _arrow(ax, (6, -0.35), (4.75, -1.4), _TRUE, "true gradient: target", (6.45, -1.15), dashed=True)


def halves(ax: Axes) -> None:
    """Each half has a copy of the interface."""
    _ends(ax)
    _cut(ax, 4, -1.7, 0.7)
    _box(ax, (1.9, 0), "half in front")
    _box(ax, (6.1, 0), "half behind")
    _box(ax, (3.0, -1.4), "copy", synthesizer=True, width=1.1)
    _box(ax, (5.0, -1.4), "copy", synthesizer=True, width=1.1)
    _arrow(ax, (2.2, -0.35), (2.8, -1.05), _ACTIVATION, "send(h, x)", (3.15, -0.6))
    _arrow(ax, (2.45, -1.5), (1.6, -0.35), _SYNTHETIC, "synthetic gradient", (1.0, -1.25))
    _arrow(ax, (5.2, -1.05), (5.8, -0.35), _SYNTHETIC, "receive(x)", (4.95, -0.6))
    _arrow(ax, (6.4, -0.35), (5.55, -1.5), _TRUE, "true gradient", (6.9, -1.25), dashed=True)
    _arrow(ax, (3.55, -1.4), (4.45, -1.4), _SYNTHETIC, "", dashed=True)
    _arrow(ax, (4.45, -1.6), (3.55, -1.6), _SYNTHETIC, "now and then", (4, -1.9), dashed=True)


def recurrent(ax: Axes) -> None:
    """A window of a truncated recurrent net."""
    for i, x in enumerate((1.2, 3.0, 4.8)):
        _box(ax, (x, 0), f"step {i + 1}", width=1.0)
        _arrow(ax, (x, -1.0), (x, -0.35), _ACTIVATION, f"x{i + 1}", (x + 0.2, -0.85))
        _arrow(ax, (x, 0.35), (x, 0.95), _ACTIVATION, "loss", (x, 1.1))
    for x in (1.7, 3.5):
        _arrow(ax, (x, 0.12), (x + 0.8, 0.12), _ACTIVATION)
        _arrow(ax, (x + 0.8, -0.12), (x, -0.12), _TRUE)
    _cut(ax, 0.2, -1.2, 1.3)
    _cut(ax, 6.1, -1.2, 1.3)
    _arrow(ax, (-0.6, 0.12), (0.7, 0.12), _ACTIVATION, "state", (-0.3, 0.32))
    _arrow(ax, (5.3, 0.12), (7.0, 0.12), _ACTIVATION, "state", (6.6, 0.32))
    _box(ax, (7.2, -1.4), "synthesizer", synthesizer=True)
    _arrow(ax, (6.4, 0.12), (7.0, -1.05), _ACTIVATION, "trigger", (7.15, -0.45))
    _arrow(ax, (6.45, -1.4), (5.3, -0.12), _SYNTHETIC, "of the future", (5.6, -1.3))
    _arrow(ax, (0.7, -0.12), (-0.6, -1.05), _TRUE, "target", (-0.35, -0.5), dashed=True)


DRAWINGS: dict[str, Callable[[Axes], None]] = {
    "backpropagation": backpropagation,
    "update_unlock": update_unlock,
    "forward_alone": forward_alone,
    "full_unlock": full_unlock,
    "halves": halves,
    "recurrent": recurrent,
}


def main(folder: Path) -> None:
    """Write all drawings."""
    # Text stays text, and the same drawing is the same file.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pytorch_dni"})
    folder.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        figure, ax = plt.subplots(figsize=(8, 3.6))
        draw(ax)
        ax.set_xlim(-0.8, 8.6)
        ax.set_ylim(-2.1, 2.0)
        ax.set_aspect("equal")
        ax.axis("off")
        figure.savefig(
            folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )
        plt.close(figure)


if __name__ == "__main__":
    main(Path(__file__).parent / "images")
