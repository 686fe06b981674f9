"""The table of a comparison, what its columns mean, and why a mode fails."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

from .tables import format_table
from .task import Task
from .training_run import TrainingRun

_LITTLE = 0.1  # of what can be learned, or of a cosine similarity
_WIDTH = 100


def summarise(
    task: Task, runs: Sequence[TrainingRun], history: Sequence[dict[str, Any]], step: int
) -> str:
    """Return a table with a row for each configuration, and what its columns mean.

    Figures are means over seeds, with the standard deviation of the test error; step times are
    medians over blocks. A row of a mode that fails ends in the reason.

    Args:
        task: What the networks were trained on.
        runs: One for each seed and configuration.
        history: Figures of all evaluations.
        step: The step of the last one.
    """
    several = len({run.seed for run in runs}) > 1
    std_header = ["std"] if several else []
    header = ["mode", "lr", "train loss", "test loss", "test error %", *std_header, "cosine"]
    rows = [[*header, "step ms", "step/bp"]]
    last = [row for row in history if row["step"] == step]
    labels = list(dict.fromkeys(run.configuration.label for run in runs))
    for label in labels:
        own = [row for row in last if row["label"] == label]
        same = [run for run in runs if run.configuration.label == label]
        errors = [100 * row["test_error"] for row in own]
        rows.append(
            [
                label,
                f"{same[0].configuration.lr:.2g}",
                _mean([row["training_loss"] for row in own], ".4f"),
                _mean([row["test_loss"] for row in own], ".4f"),
                _mean(errors, ".2f"),
                *[f"{statistics.stdev(errors):.2f}" for _ in std_header],
                _mean([row["cosine"] for row in own], ".3f"),
                _median([seconds for run in same for seconds in run.block_times], 1e3),
                _median([ratio for run in same for ratio in _step_time_ratios(run, runs)]),
            ]
        )
    reasons = [failure(label, last, task.chance_error) for label in labels]
    table = format_table(rows).splitlines()
    for line, reason in enumerate(reasons, 2):
        table[line] += f"   {reason}" if reason else ""
    return "\n".join([*table, "", explanation(task, labels, several)])


def explanation(task: Task, labels: Sequence[str], several: bool) -> str:
    """Return a few sentences on the columns of the table."""
    text = (
        f"test error: {task.error_meaning}, on data that was not trained on; by chance it is "
        f"{100 * task.chance_error:.1f} %."
    )
    if several:
        text += " std: standard deviation over seeds."
    if any(label != "bp" for label in labels):
        text += (
            " cosine: how near synthetic gradients are to those that they predict (1: equal, 0: "
            "unrelated)."
        )
    text += " step ms: time of a training step; step/bp: divided by that of backpropagation."
    return textwrap.fill(text, _WIDTH)


def failure(label: str, rows: Sequence[dict[str, Any]], chance_error: float) -> str:
    """Return why a configuration fails; an empty text where it does not.

    It fails where it has learned less than half of what backpropagation has.

    Args:
        label: Its label.
        rows: Figures of the last evaluation of all configurations and seeds.
        chance_error: Test error of the best constant answer.
    """
    own = [row for row in rows if row["label"] == label]
    if not all(math.isfinite(row["training_loss"] + row["test_loss"]) for row in own):
        return "fails: its loss is not finite; give a smaller --lr"
    learned = _learned(own, chance_error)
    reference = _learned([row for row in rows if row["mode"] == "bp"], chance_error)
    if reference < _LITTLE or label == "bp":
        return "not better than chance yet; give more --steps" if learned < _LITTLE else ""
    if learned >= reference / 2:
        return ""
    if own[0]["mode"] == "dni":
        return "fails: it is not told the targets"
    cosines = [row["cosine"] for row in own if row["cosine"] is not None]
    kind = "unrelated to" if cosines and statistics.mean(cosines) < _LITTLE else "too far from"
    return f"fails: its synthetic gradients are {kind} the true ones"


def _learned(rows: Sequence[dict[str, Any]], chance_error: float) -> float:
    """Return the share of the chance error that has been removed; 0 for no rows."""
    if not rows:
        return 0.0
    return 1 - statistics.mean(row["test_error"] for row in rows) / chance_error


def _step_time_ratios(run: TrainingRun, runs: Sequence[TrainingRun]) -> list[float | None]:
    """Return the ratio of step time to that of backpropagation, for each block."""
    for other in runs:
        if other.seed == run.seed and other.configuration.mode == "bp":
            pairs = zip(run.block_times, other.block_times, strict=True)
            return [own / base if own and base else None for own, base in pairs]
    return []


def _mean(values: list[float | None], format_spec: str) -> str:
    known = [value for value in values if value is not None]
    return format(statistics.mean(known), format_spec) if known else "-"


def _median(values: list[float | None], factor: float = 1.0) -> str:
    known = [value for value in values if value is not None]
    return f"{factor * statistics.median(known):.2f}" if known else "-"
