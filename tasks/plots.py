"""Plots as PNG images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class HistoryEntry(NamedTuple):
    """One result of a run during training.

    Attributes:
        steps: Number of training steps before it.
        seconds: Training time before it.
        value: The result.
    """

    steps: int
    seconds: float
    value: float


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, which needs no display."""
    # Matplotlib takes half a second to import, and only some runs need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure, dpi: int = 120) -> bytes:
    """Return a figure as a PNG image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def plot_histories(
    histories: Sequence[tuple[str, Sequence[HistoryEntry]]],
    ylabel: str,
    title: str,
    steps: bool = False,
) -> bytes:
    """Plot results over training steps and over seconds.

    Args:
        histories: Label and entries of each run; runs with the same label share a colour.
        ylabel: Label of the results.
        title: Title of the figure.
        steps: Whether a result holds until the next one, instead of changing linearly.
    """
    figure = new_figure(9, 3.8)
    colours = {label: f"C{i}" for i, label in enumerate(dict(histories))}
    for position, unit in enumerate(("steps", "seconds")):
        axes = figure.add_subplot(1, 2, position + 1)
        labelled = set()
        for label, entries in histories:
            style: dict[str, Any] = {"color": colours[label], "alpha": 0.7}
            if label not in labelled:
                style["label"] = label
            labelled.add(label)
            x, y = [getattr(e, unit) for e in entries], [e.value for e in entries]
            if steps:
                axes.step(x, y, where="post", **style)
            else:
                axes.plot(x, y, marker=".", **style)
        axes.set(xlabel=unit, ylabel=ylabel)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    return to_png(figure)


def plot_cosines(cosines: Mapping[str, Sequence[tuple[int, Sequence[float]]]]) -> bytes:
    """Plot cosine similarities by depth over training steps, a panel for each label.

    Args:
        cosines: By label, pairs of a step and the cosines of the parts, the first part first.
    """
    figure = new_figure(2.6 * len(cosines) + 0.8, 3)
    panels = figure.subplots(1, len(cosines), squeeze=False, sharey=True)[0]
    image = None
    for axes, (label, rows) in zip(panels, cosines.items(), strict=True):
        steps = [step for step, _ in rows]
        width = (steps[-1] - steps[0]) / max(len(steps) - 1, 1) or 1
        depth = len(rows[0][1])
        extent = (steps[0] - width / 2, steps[-1] + width / 2, 0.5, depth + 0.5)
        values = [[row[part] for _, row in rows] for part in range(depth)]
        image = axes.imshow(
            values, vmin=-1, vmax=1, cmap="RdBu", aspect="auto", origin="lower", extent=extent
        )
        axes.set(title=label, xlabel="step")
        axes.set_yticks(range(1, depth + 1))
    panels[0].set_ylabel("part (the last one is exact)")
    assert image is not None
    figure.colorbar(image, ax=panels, label="cosine to the exact gradient")
    return to_png(figure)


def plot_test_errors(history: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Plot test errors over training steps: one curve for each label, the mean over seeds."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    curves: dict[str, dict[int, list[float]]] = {}
    for row in history:
        curve = curves.setdefault(row["label"], {})
        curve.setdefault(row["step"], []).append(100 * row["test_error"])
    for label, curve in curves.items():
        means = [sum(errors) / len(errors) for errors in curve.values()]
        axes.plot(list(curve), means, marker=".", label=label)
    if all(row["test_error"] > 0 for row in history):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.set(xlabel="step", ylabel="test error [%]", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return to_png(figure)
