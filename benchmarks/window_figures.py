"""Table and picture of the study of windows."""

from __future__ import annotations

import io
import random
import statistics
from collections.abc import Sequence
from typing import Any

from tasks import record

_BOOTSTRAPS = 2000
Row = dict[str, Any]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % of bootstrapped means."""
    draws = random.Random(0)
    means = sorted(
        statistics.mean(draws.choices(values, k=len(values))) for _ in range(_BOOTSTRAPS)
    )
    return means[int(0.025 * _BOOTSTRAPS)], means[int(0.975 * _BOOTSTRAPS) - 1]


def result(row: Row, seconds: float | None = None) -> float:
    """The largest length solved, or of text the bits, at the end or by a time."""
    history = [entry for entry in row["history"] if seconds is None or entry[1] <= seconds]
    if "solved" in row:
        return max(entry[2] for entry in history) - 1
    return history[-1][2] if history else float("nan")


def best(rows: Sequence[Row]) -> list[Row]:
    """Of the rows of one task, window and mode those at its best learning rate."""
    rates = {row["lr"]: [r for r in rows if r["lr"] == row["lr"]] for row in rows}
    text = "solved" not in rows[0]
    means = {lr: statistics.mean(map(result, own)) for lr, own in rates.items()}
    return rates[min(means, key=lambda lr: means[lr] if text else -means[lr])]


def groups(rows: Sequence[Row]) -> dict[tuple[str, int, str], list[Row]]:
    """By task, window and mode, at the best learning rate."""
    found: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["task"], row["window"], row["mode"]), []).append(row)
    return {key: best(own) for key, own in found.items()}


def table(rows: Sequence[Row]) -> str:
    """Means over seeds with 95 % intervals, at equal updates and in ``bptt``'s time."""
    head = ["task", "T", "mode", "lr", "equal updates", "95 %", "bptt's time", "95 %", "ms"]
    lines, found = [head], groups(rows)
    for (task, window, mode), own in found.items():
        times = {row["seed"]: row["seconds"] for row in found.get((task, window, "bptt"), [])}
        updates = [result(row) for row in own]
        timed = [result(row, times.get(row["seed"], row["seconds"])) for row in own]
        cost = sum(row["seconds"] for row in own) / sum(row["updates"] for row in own)
        name = [task, str(window), mode, f"{own[0]['lr']:g}"]
        lines.append([*name, *_cells(updates), *_cells(timed), f"{1e3 * cost:.2f}"])
    return record.table(lines)


def _cells(values: Sequence[float]) -> list[str]:
    low, high = interval(values)
    return [f"{statistics.mean(values):.2f}", f"{low:.2f} to {high:.2f}"]


def picture(rows: Sequence[Row]) -> bytes:
    """Results over the length of windows as PNG, a panel for each task, a line for each mode."""
    # Takes half a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = groups(rows)
    tasks = list(dict.fromkeys(task for task, _, _ in found))
    modes = list(dict.fromkeys(mode for _, _, mode in found))
    figure = Figure(figsize=(4.2 * len(tasks), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for place, task in enumerate(tasks):
        axes = figure.add_subplot(1, len(tasks), place + 1)
        for i, mode in enumerate(modes):
            windows = sorted(w for t, w, m in found if t == task and m == mode)
            if not windows:
                continue
            values = [[result(row) for row in found[task, w, mode]] for w in windows]
            means = [statistics.mean(own) for own in values]
            ends = [interval(own) for own in values]
            below = [mean - low for mean, (low, _) in zip(means, ends, strict=True)]
            above = [high - mean for mean, (_, high) in zip(means, ends, strict=True)]
            axes.errorbar(
                windows, means, [below, above], color=f"C{i}", marker=".", capsize=3, label=mode
            )
        text = "solved" not in next(row for row in rows if row["task"] == task)
        axes.set(
            title=task.replace("_", " "),
            xlabel="steps of a window",
            ylabel="bits per character" if text else "largest length solved",
        )
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
