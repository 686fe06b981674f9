"""Windows of a recurrent net: what synthetic gradients of the future are worth.

Truncated backpropagation, on windows and on windows four times as long, against synthetic
gradients: the largest length solved after equal updates, and in equal time. A long study:
``python -m benchmarks.windows --task copy,repeat_copy --window 3,5 --seeds 10``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks import copy_task, options, recall_task, record, repeat_copy_task, truncated

_TASKS = {
    "copy": ("copy_task", copy_task.CopyEpisodes, {"bits": 4}),
    "repeat_copy": ("repeat_copy_task", repeat_copy_task.RepeatCopyTask, {"bits": 4, "repeats": 3}),
    "recall": ("recall_task", recall_task.RecallTask, {"start": 1}),
}
_BOOTSTRAPS = 2000


def _numbers(text: str) -> list[int]:
    return [options.number(int, 1)(part) for part in text.split(",")]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % of bootstrapped means."""
    draws = random.Random(0)
    means = sorted(
        statistics.mean(draws.choices(values, k=len(values))) for _ in range(_BOOTSTRAPS)
    )
    return means[int(0.025 * _BOOTSTRAPS)], means[int(0.975 * _BOOTSTRAPS) - 1]


def solved_in(row: dict[str, Any], seconds: float) -> int:
    """The largest length that a run had solved by a time."""
    return max(difficulty - 1 for _, at, difficulty in row["history"] if at <= seconds)


def study(task: str, window: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All modes and seeds; each mode meets the same noise of the machine."""
    name, kind, extra = _TASKS[task]
    made = truncated.parser(name, "")
    given = made.parse_args([])
    vars(given).update(extra, window=window, **{k: getattr(args, k) for k in ("lr", "forget_bias")})
    rows = []
    for seed in range(1, args.seeds + 1):
        runs = [truncated.Run(mode, seed, kind(given), given) for mode in args.mode]
        for _ in range(args.updates):
            for run in runs:
                run.update()
        rows += [{"task": task, "window": window, **run.row()} for run in runs]
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over seeds with 95 % intervals, in equal updates and in ``bptt``'s time."""
    head = ["task", "T", "mode", "solved, equal updates", "95 %", "in bptt's time", "95 %", "ms"]
    lines = [head]
    for task, window in dict.fromkeys((row["task"], row["window"]) for row in rows):
        here = [row for row in rows if (row["task"], row["window"]) == (task, window)]
        times = {row["seed"]: row["seconds"] for row in here if row["mode"] == "bptt"}
        for mode in dict.fromkeys(row["mode"] for row in here):
            own = [row for row in here if row["mode"] == mode]
            updates = [row["solved"] for row in own]
            timed = [solved_in(row, times.get(row["seed"], row["seconds"])) for row in own]
            cost = sum(r["seconds"] for r in own) / sum(r["updates"] for r in own)
            lines.append(
                [task, str(window), mode, *_cells(updates), *_cells(timed), f"{1e3 * cost:.2f}"]
            )
    return record.table(lines)


def _cells(values: Sequence[float]) -> list[str]:
    low, high = interval(values)
    return [f"{statistics.mean(values):.2f}", f"{low:.2f} to {high:.2f}"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.windows", description=__doc__)
    add = parser.add_argument
    add("--task", type=options.several([*_TASKS]), default=[*_TASKS], metavar="TASK,...")
    add("--window", type=_numbers, default=[2, 3, 5, 8], metavar="T,...")
    add("--mode", type=options.several(truncated.MODES), default=["bptt", "bptt4", "dni"])
    add("--seeds", type=options.number(int, 1), default=10)
    add("--updates", type=options.number(int, 1), default=8000)
    add("--lr", type=options.number(float, 0, above=True), default=3e-3)
    add("--forget-bias", type=float, default=1.0)
    add("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for task in args.task:
        for window in args.window:
            rows += study(task, window, args)
            if args.json is not None:
                record.replace(args.json, json.dumps(rows).encode())
    print(table(rows))


if __name__ == "__main__":
    main()
