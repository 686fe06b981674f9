"""Plots as PNG images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Colours that colour-blind people tell apart (Okabe and Ito 2008), the reference first, in black.
_COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9")
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (6, 1),
    (3, 1),
    (4, 1.5, 1, 1.5),
    (2, 1.5),
    (3, 1.5, 1, 1.5, 1, 1.5),
    (1, 1.8),
)
_MARKERS = "os^DvPX"


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
    """Return an empty figure of a size in inches, which needs no display.

    Pages show pictures about nine inches wide; text in a wider one becomes too small to read.
    """
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


def curve_style(position: int) -> dict[str, Any]:
    """Return colour, dashes, marker and width of a curve by its position among the curves.

    Each curve is thinner than those before it, has smaller markers, and wider gaps. So a curve that
    lies on another one does not hide it, and curves differ without their colours, too.
    """
    kind = position % len(_COLOURS)
    dashes = _DASHES[kind]
    return {
        "color": _COLOURS[kind],
        "linestyle": (0, dashes) if dashes else "-",
        "linewidth": 2.8 - 0.25 * kind,
        "marker": _MARKERS[kind],
        "markersize": 7.5 - 0.6 * kind,
        "zorder": 2 + 0.1 * kind,
    }


def whole_ticks(axis: Axis, most: int = 8) -> None:
    """Put ticks at whole numbers only: those of steps, parts and lengths.

    Args:
        axis: An axis of a panel.
        most: Largest number of intervals between ticks.
    """
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, steps=(1, 2, 5, 10)))


def plain_log_ticks(axis: Axis) -> None:
    """Label 1, 2 and 5 and their multiples by ten on a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def add_legend(figure: Figure, columns: int, place: str = "upper") -> None:
    """Put one legend for all panels above or below them, so that it hides no curve.

    Args:
        figure: A figure whose curves have labels.
        columns: Number of labels in a row.
        place: Where it stands, ``"upper"``, or ``"lower"`` where the figure has a title.
    """
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    # A longer sample shows the dashes.
    figure.legend(
        [*found.values()], [*found], loc=f"outside {place} center", ncols=columns, handlelength=3.5
    )


def plot_histories(
    histories: Sequence[tuple[str, Sequence[HistoryEntry]]],
    ylabel: str,
    title: str,
    steps: bool = False,
) -> bytes:
    """Plot results over training steps and over seconds.

    Args:
        histories: Label and entries of each run; runs with the same label share a style.
        ylabel: Label of the results.
        title: Title of the figure.
        steps: Whether a result is a whole number that holds until the next one, instead of changing
            linearly.
    """
    figure = new_figure(9, 4)
    styles = {label: curve_style(i) for i, label in enumerate(dict(histories))}
    panels = figure.subplots(1, 2)
    for axes, unit in zip(panels, ("steps", "seconds"), strict=True):
        for label, entries in histories:
            style = {**styles[label], "alpha": 0.7, "label": label}
            x, y = [getattr(e, unit) for e in entries], [e.value for e in entries]
            if steps:
                axes.step(x, y, where="post", **{**style, "marker": None})
            else:
                axes.plot(x, y, **style)
        axes.set(xlabel="training steps" if unit == "steps" else "training time [s]", ylabel=ylabel)
        axes.grid(alpha=0.3)
        if steps:
            whole_ticks(axes.yaxis)
    whole_ticks(panels[0].xaxis, most=6)
    figure.suptitle(title)
    add_legend(figure, columns=len(styles), place="lower")
    return to_png(figure)


def plot_cosines(cosines: Mapping[str, Sequence[tuple[int, Sequence[float]]]]) -> bytes:
    """Plot cosine similarities by depth over training steps, a panel for each label.

    Args:
        cosines: By label, pairs of a step and the cosines of the parts, the first part first.
    """
    figure = new_figure(max(4.5, 1.5 * len(cosines) + 1.5), 3.2)
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
        whole_ticks(axes.xaxis, most=3)
        axes.set_yticks(range(1, depth + 1))
    panels[0].set_ylabel("part (the last one is exact)")
    assert image is not None
    figure.colorbar(image, ax=panels, label="cosine to the exact gradient", fraction=0.05, pad=0.02)
    return to_png(figure)


def plot_test_errors(history: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Plot test errors over training steps: the mean over seeds, and a band of all seeds."""
    figure = new_figure(9, 5)
    axes = figure.subplots()
    curves: dict[str, dict[int, list[float]]] = {}
    for row in history:
        curve = curves.setdefault(row["label"], {})
        curve.setdefault(row["step"], []).append(100 * row["test_error"])
    seeds = max(len(errors) for curve in curves.values() for errors in curve.values())
    for position, (label, curve) in enumerate(curves.items()):
        style = curve_style(position)
        means = [sum(errors) / len(errors) for errors in curve.values()]
        axes.plot(list(curve), means, label=label, **style)
        if seeds > 1:
            low, high = ([way(errors) for errors in curve.values()] for way in (min, max))
            axes.fill_between(list(curve), low, high, color=style["color"], alpha=0.15, linewidth=0)
    if all(row["test_error"] > 0 for row in history):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    note = f": mean, lowest and highest of {seeds} seeds" if seeds > 1 else ""
    axes.set(xlabel="training step", ylabel="test error [%]", title=f"{title}{note}")
    whole_ticks(axes.xaxis)
    axes.grid(alpha=0.3, which="both")
    # Beside the curves, since they may fill the panel.
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=3.5, frameon=False)
    return to_png(figure)
