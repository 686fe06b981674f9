"""Drawings of the data flow of a training step through the files of the package."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

_WIDTH, _HEIGHT = 3.6, 0.86  # size of a box
_COLUMN, _ROW = 4.3, 1.3  # distances between the centres of boxes
_INCHES = 0.8
_LIBRARY, _USER = ("#d6e6f2", "#2471a3"), ("#f2f2f2", "#333333")


class Action(NamedTuple):
    """One action of a step.

    Attributes:
        where: The file of the package, or what else acts.
        text: What it does.
    """

    where: str
    text: str

    @property
    def in_library(self) -> bool:
        """Whether the action happens in a file of the package."""
        return self.where.endswith(".py")


class Phase(NamedTuple):
    """A column of the drawing.

    Attributes:
        title: The part of the user's loop.
        actions: What happens in it, from top to bottom.
    """

    title: str
    actions: list[Action]


class StepDrawing:
    """A drawing of a step: one column for each phase, one box for each action."""

    def __init__(self, *phases: Phase) -> None:
        self._phases = phases
        self._rows = max(len(phase.actions) for phase in phases)

    def save(self, file: Path) -> None:
        """Write the drawing as SVG."""
        width = _COLUMN * (len(self._phases) - 1) + _WIDTH + 0.4
        height = _ROW * self._rows + 0.5
        figure = plt.figure(figsize=(_INCHES * width, _INCHES * height))
        ax = figure.add_axes((0, 0, 1, 1))
        for i, phase in enumerate(self._phases):
            self._column(ax, i, phase)
        ax.set_xlim(-_WIDTH / 2 - 0.2, width - _WIDTH / 2 - 0.2)
        ax.set_ylim(-_ROW * (self._rows - 1) - _HEIGHT / 2 - 0.15, _HEIGHT / 2 + 0.75)
        ax.axis("off")
        figure.savefig(file, metadata={"Date": None, "Creator": None})
        plt.close(figure)

    def _column(self, ax: Axes, i: int, phase: Phase) -> None:
        x = i * _COLUMN
        ax.text(x, _HEIGHT / 2 + 0.4, phase.title, ha="center", va="center", fontsize=11)
        for row, action in enumerate(phase.actions):
            _box(ax, x, -row * _ROW, action)
            if row:
                top, bottom = -(row - 1) * _ROW - _HEIGHT / 2, -row * _ROW + _HEIGHT / 2
                _arrow(ax, (x, top - 0.04), (x, bottom + 0.04))
        if i:
            # From the last box of the column before, beside both columns, to the first box.
            before = len(self._phases[i - 1].actions) - 1
            middle = x - _COLUMN / 2
            corners = [
                (x - _COLUMN + _WIDTH / 2 + 0.04, -before * _ROW),
                (middle, -before * _ROW),
                (middle, 0.0),
            ]
            ax.plot(*zip(*corners, strict=True), color=_USER[1], linewidth=1)
            _arrow(ax, (middle, 0.0), (x - _WIDTH / 2 - 0.04, 0.0))


def _box(ax: Axes, x: float, y: float, action: Action) -> None:
    fill, edge = _LIBRARY if action.in_library else _USER
    corner = (x - _WIDTH / 2, y - _HEIGHT / 2)
    style = "round,pad=0.02,rounding_size=0.1"
    ax.add_patch(
        FancyBboxPatch(corner, _WIDTH, _HEIGHT, boxstyle=style, facecolor=fill, edgecolor=edge)
    )
    weight = "bold" if action.in_library else "normal"
    ax.text(
        x, y + 0.25, action.where, ha="center", va="center", fontsize=8, color=edge, weight=weight
    )
    ax.text(x, y - 0.12, action.text, ha="center", va="center", fontsize=8.5)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=_USER[1],
            shrinkA=0,
            shrinkB=0,
        )
    )


_FORWARD, _BACKWARD, _END = "out = net(x)", "loss.backward()", "end of the pass; opt.step()"
_STEP = [
    Action("interfaces/_learner.py", "one optimizer step\nfor all synthesizers"),
    Action("user's loop", "the user's optimizer\nsteps the network"),
]

STEPS = {
    "step_default": StepDrawing(
        Phase(
            _FORWARD,
            [
                Action("network", "the module at a cut\nhas run"),
                Action("cuts/_register.py", "a module hook finds\nits activation"),
                Action("cuts/_methods.py", "a tensor hook is put\non the activation"),
            ],
        ),
        Phase(
            _BACKWARD,
            [
                Action("network", "the true gradient\nreaches the activation"),
                Action("cuts/_methods.py", "the tensor hook\ntakes it"),
                Action(
                    "interfaces/_backward.py",
                    "the synthesizer predicts,\nand its lesson is computed",
                ),
                Action("interfaces/_learner.py", "the lesson is collected"),
                Action("network", "the synthetic gradient\nis passed to earlier layers"),
            ],
        ),
        Phase(_END, _STEP),
    ),
    "step_eager": StepDrawing(
        Phase(
            _FORWARD,
            [
                Action("network", "the part before a cut\nhas run"),
                Action("eager/_pass.py", "the synthesizer predicts;\nthe part's gradients"),
                Action("eager/_cut.py", "the cut before it learns:\na pending update"),
                Action("eager/_delivery.py", "gradients and pending\nupdates are kept"),
                Action("eager/_cut.py", "the activation is passed\non without its history"),
            ],
        ),
        Phase(
            _BACKWARD,
            [
                Action("eager/_delivery.py", "the pending updates\nare applied"),
                Action("eager/_delivery.py", "each parameter gets\nits gradient"),
                Action("network", "gradient of the last part"),
                Action("eager/_cut.py", "the last cut learns\nfrom it"),
            ],
        ),
        Phase(_END, _STEP),
    ),
    "step_windows": StepDrawing(
        Phase(
            "out, state = net(x, state)",
            [
                Action("recurrent/_cuts.py", "the window begins"),
                Action("recurrent/_module.py", "the first state is cut"),
                Action("network", "the window runs"),
                Action("recurrent/_module.py", "the last state is kept\nfor the next window"),
            ],
        ),
        Phase(
            _BACKWARD,
            [
                Action("recurrent/_state.py", "the predicted gradient\nenters at the last state"),
                Action("network", "backpropagation\nthrough the window"),
                Action("recurrent/_state.py", "a gradient comes\nto the first state"),
                Action("recurrent/interface.py", "the synthesizer learns\nfrom it"),
            ],
        ),
        Phase(_END, _STEP),
    ),
}
