"""Windows of a recurrent net: what synthetic gradients of the future are worth.

Truncated backpropagation, on windows and on windows four times as long, against synthetic
gradients: the largest length solved (of text, bits for each character) after equal updates, and in
equal time. Every mode is run at each learning rate, and told at its best one. The study of the
docs: ``python -m benchmarks.windows --task copy --lr 3e-3,1e-2 --json FILE``, and likewise for the
other tasks; ``--read FILE ... --plot FILE`` makes table and picture of what was found.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks import (
    char_language_model,
    copy_task,
    episodes,
    language_runs,
    options,
    recall_task,
    record,
    repeat_copy_task,
    truncated,
)

from . import window_figures

_TASKS = {
    "copy": ("copy_task", copy_task.CopyEpisodes, {"bits": 4}),
    "repeat_copy": ("repeat_copy_task", repeat_copy_task.RepeatCopyTask, {"bits": 4, "repeats": 3}),
    "recall": ("recall_task", recall_task.RecallTask, {"start": 1}),
}
_TEXT = "characters"
_MODES = ("bptt", "bptt4", "dni")
_EVALUATIONS = 10


def _numbers(text: str) -> list[int]:
    return [options.number(int, 1)(part) for part in text.split(",")]


def _rates(text: str) -> list[float]:
    return [options.number(float, 0, above=True)(part) for part in text.split(",")]


def study(
    task: str, window: int, modes: Sequence[str], lr: float, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """All modes and seeds in turns: each meets the same noise of the machine."""
    head = {"task": task, "window": window, "lr": lr}
    if task == _TEXT:
        return [{**head, **row} for row in _text(window, modes, lr, args)]
    name, kind, extra = _TASKS[task]
    given = truncated.parser(name, "").parse_args([])
    same = {key: getattr(args, key) for key in ("forget_bias", "hidden") if getattr(args, key)}
    vars(given).update(extra, window=window, lr=lr, **same)
    rows = []
    for seed in range(1, args.seeds + 1):
        runs = [episodes.Run(mode, seed, kind(given), given) for mode in modes]
        for _ in range(args.updates):
            for run in runs:
                run.update()
        rows += [{**head, **run.row()} for run in runs]
    return rows


def _text(
    window: int, modes: Sequence[str], lr: float, args: argparse.Namespace
) -> list[dict[str, Any]]:
    given = char_language_model.parser().parse_args([])
    vars(given).update(window=window, lr=lr, device=options.default_device())
    if args.hidden:
        given.hidden = args.hidden
    text = language_runs.Text(given.data, list)
    rows = []
    for seed in range(1, args.seeds + 1):
        runs = [language_runs.Run(mode, seed, text, given) for mode in modes]
        for i in range(args.updates):
            for run in runs:
                run.update()
                if (i + 1) % max(args.updates // _EVALUATIONS, 1) == 0:
                    run.evaluate()
        rows += [run.row() for run in runs]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.windows", description=__doc__)
    add = parser.add_argument
    tasks = [*_TASKS, *([_TEXT] if os.environ.get("DNI_DATA") else [])]
    add("--task", type=options.several(tasks), default=[*_TASKS], metavar="TASK,...",
        help=f"of {', '.join(tasks)}; characters needs DNI_DATA")  # fmt: skip
    add("--window", type=_numbers, default=[2, 3, 5, 8], metavar="T,...")
    add("--mode", type=options.several(episodes.MODES), default=[*_MODES], metavar="MODE,...")
    add("--seeds", type=options.number(int, 1), default=10)
    add("--updates", type=options.number(int, 1), default=6000)
    add("--lr", type=_rates, default=[3e-3], metavar="RATE,...")
    add("--forget-bias", type=float, help="default: the task's")
    add("--hidden", type=options.number(int, 1), help="default: the task's")
    add("--json", type=Path, metavar="FILE", help="write what was found there")
    add("--read", type=Path, nargs="+", default=[], metavar="FILE", help="take it from there")
    add("--plot", type=Path, metavar="FILE", help="draw it there")
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for file in args.read:
        rows += json.loads(file.read_text())
    for task in args.task if not args.read else []:
        for window in args.window:
            for lr in args.lr:
                rows += study(task, window, args.mode, lr, args)
                if args.json is not None:
                    record.replace(args.json, (json.dumps(rows) + "\n").encode())
    print(window_figures.table(rows))
    if args.plot is not None:
        record.replace(args.plot, window_figures.picture(rows))


if __name__ == "__main__":
    main()
