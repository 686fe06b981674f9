"""Table and plot of the study of windows."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import Any

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


def plot(rows: Sequence[Row]) -> bytes:
    """Plot results over the length of windows as PNG: a panel for each task, a line for a mode."""
    groups = group_rows(rows)
    tasks = list(dict.fromkeys(task for task, _, _ in groups))
    modes = list(dict.fromkeys(mode for _, _, mode in groups))
    figure = plots.new_figure(4.2 * len(tasks), 3.8)
    for position, task in enumerate(tasks):
        axes = figure.add_subplot(1, len(tasks), position + 1)
        for i, mode in enumerate(modes):
            windows = sorted(w for t, w, m in groups if (t, m) == (task, mode))
            if windows:
                groups_of_mode = [groups[task, window, mode] for window in windows]
                _plot_mode(axes, windows, groups_of_mode, color=f"C{i}", label=mode)
        text = _is_text(next(row for row in rows if row["task"] == task))
        axes.set(
            title=task.replace("_", " "),
            xlabel="steps of a window",
            ylabel="bits per character" if text else "largest length solved",
        )
        axes.grid(alpha=0.3)
        axes.legend()
    return plots.to_png(figure)


def _plot_mode(
    axes: Any, windows: Sequence[int], groups: Sequence[Sequence[Row]], **style: str
) -> None:
    """Plot means with confidence intervals: one point for each window and its group of rows."""
    values = [[result(row) for row in group] for group in groups]
    means = [statistics.mean(group) for group in values]
    intervals = [confidence_interval(group) for group in values]
    below = [mean - low for mean, (low, _) in zip(means, intervals, strict=True)]
    above = [high - mean for mean, (_, high) in zip(means, intervals, strict=True)]
    axes.errorbar(windows, means, [below, above], marker=".", capsize=3, **style)
