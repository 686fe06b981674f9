"""Table and plot of the study of windows."""

from __future__ import annotations

import random
import statistics
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from tasks import plots
from tasks.tables import format_table

_BOOTSTRAP_SAMPLES = 2000

#: Figures of one run, as ``WindowRun.result()`` returns them, with its task and its options.
Row = dict[str, Any]


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap confidence interval of the mean."""
    generator = random.Random(0)
    means = sorted(
        statistics.mean(generator.choices(values, k=len(values))) for _ in range(_BOOTSTRAP_SAMPLES)
    )
    return means[int(0.025 * _BOOTSTRAP_SAMPLES)], means[int(0.975 * _BOOTSTRAP_SAMPLES) - 1]


def result(row: Row, seconds: float | None = None) -> float:
    """Return the result of a run: the largest length solved, or for a text the bits per token.

    Args:
        row: Figures of the run.
        seconds: Training time after which the result is taken; None for the last result.
    """
    history = [entry for entry in row["history"] if seconds is None or entry[1] <= seconds]
    if not _is_text(row):
        return max(entry[2] for entry in history) - 1
    return history[-1][2] if history else float("nan")


def _is_text(row: Row) -> bool:
    return "solved" not in row


def at_best_learning_rate(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the learning rate whose mean result is best.

    Args:
        rows: Rows of one task, window and mode.
    """
    by_rate = {row["lr"]: [r for r in rows if r["lr"] == row["lr"]] for row in rows}
    means = {lr: statistics.mean(map(result, group)) for lr, group in by_rate.items()}
    sign = 1 if _is_text(rows[0]) else -1  # fewer bits are better, longer sequences are
    return by_rate[min(means, key=lambda lr: sign * means[lr])]


def group_rows(rows: Sequence[Row]) -> dict[tuple[str, int, str], list[Row]]:
    """Return the rows of each task, window and mode at its best learning rate."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["window"], row["mode"]), []).append(row)
    return {key: at_best_learning_rate(group) for key, group in groups.items()}


def table(rows: Sequence[Row]) -> str:
    """Return a table of means over seeds, with 95 % confidence intervals.

    Results are compared after equal numbers of steps, and after the training time of ``bp``.
    """
    header = ["task", "T", "mode", "lr", "equal steps", "95 %", "time of bp", "95 %"]
    lines, groups = [[*header, "step ms"]], group_rows(rows)
    for (task, window, mode), group in groups.items():
        bp = groups.get((task, window, "bp"), [])
        times = {row["seed"]: row["seconds"] for row in bp}
        final = [result(row) for row in group]
        timed = [result(row, times.get(row["seed"], row["seconds"])) for row in group]
        seconds = sum(row["seconds"] for row in group) / sum(row["steps"] for row in group)
        name = [task, str(window), mode, f"{group[0]['lr']:g}"]
        lines.append([*name, *_cells(final), *_cells(timed), f"{1e3 * seconds:.2f}"])
    return format_table(lines)


def _cells(values: Sequence[float]) -> list[str]:
    low, high = confidence_interval(values)
    return [f"{statistics.mean(values):.2f}", f"{low:.2f} to {high:.2f}"]


class Point(NamedTuple):
    """The result of a mode with one length of windows.

    Attributes:
        task: Name of the task.
        window: Steps of a window.
        mode: How the network was trained.
        mean: Mean of the result over seeds.
        low: Lower end of its 95 % confidence interval.
        high: Upper end.
    """

    task: str
    window: int
    mode: str
    mean: float
    low: float
    high: float


def plot(rows: Sequence[Row]) -> bytes:
    """Plot results over the length of windows as PNG: a panel for each task, a line for a mode."""
    points = []
    for (task, window, mode), group in group_rows(rows).items():
        values = [result(row) for row in group]
        mean = statistics.mean(values)
        points.append(Point(task, window, mode, mean, *confidence_interval(values)))
    return plot_points(points, {row["task"] for row in rows if _is_text(row)})


def plot_points(points: Sequence[Point], texts: Collection[str]) -> bytes:
    """Plot means with confidence intervals as PNG, two panels beside each other.

    Args:
        points: What is plotted.
        texts: Names of the tasks whose results are bits per character, and not lengths.
    """
    tasks = list(dict.fromkeys(point.task for point in points))
    modes = list(dict.fromkeys(point.mode for point in points))
    columns = min(2, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = plots.new_figure(4.5 * columns, 3.1 * lines + 0.6)
    panels = [*figure.subplots(lines, columns, squeeze=False).flat]
    for axes, task in zip(panels, tasks, strict=False):
        for position, mode in enumerate(modes):
            own = sorted(p for p in points if (p.task, p.mode) == (task, mode))
            if own:
                _plot_mode(axes, own, **plots.curve_style(position))
        axes.set(title=task.replace("_", " "), xlabel="steps of a window")
        axes.set_xticks(sorted({point.window for point in points if point.task == task}))
        axes.set_ylabel("bits per character" if task in texts else "largest length solved")
        if task not in texts:
            plots.whole_ticks(axes.yaxis, most=6)
        axes.grid(alpha=0.3)
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    plots.add_legend(figure, columns=len(modes))
    return plots.to_png(figure)


def _plot_mode(axes: Any, points: Sequence[Point], **style: Any) -> None:
    means = [point.mean for point in points]
    below = [point.mean - point.low for point in points]
    above = [point.high - point.mean for point in points]
    windows = [point.window for point in points]
    label = points[0].mode
    axes.errorbar(windows, means, [below, above], capsize=3, elinewidth=1.2, label=label, **style)
