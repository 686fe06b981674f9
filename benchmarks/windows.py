"""Study of windows of a recurrent network: synthetic gradients and truncated backpropagation.

Each mode is trained on windows of each length at each learning rate, and the table shows its best
learning rate. The result is the largest length solved, or for a text the bits per character, after
equal numbers of steps and in equal time. The documented study of one task is "python -m
benchmarks.windows --task copy --lr 3e-3,1e-2 --json FILE"; "--read FILE ... --plot FILE" makes
table and plot from files of several tasks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks import (
    char_language_model,
    copy_task,
    files,
    language_runs,
    options,
    recall_task,
    repeat_copy_task,
)
from tasks.argument_types import data_folder, names, numbers
from tasks.episodes import EpisodeRun, EpisodeTask, MODES
from tasks.errors import TaskError

from . import window_results


class _StudiedTask(NamedTuple):
    """A task on episodes.

    Attributes:
        parser: Returns the parser of its options.
        make: Makes the task from the options.
    """

    parser: Callable[[], options.Parser]
    make: Callable[[argparse.Namespace], EpisodeTask]


_TASKS = {
    "copy": _StudiedTask(copy_task.window_parser, copy_task.CopyEpisodes),
    "repeat_copy": _StudiedTask(repeat_copy_task.parser, repeat_copy_task.RepeatCopyTask),
    "recall": _StudiedTask(recall_task.parser, recall_task.RecallTask),
}
_TEXT = "characters"
_DEFAULT_MODES = ["bp", "bp4", "dni"]
_EVALUATIONS = 10


def study(
    task: str, window: int, modes: Sequence[str], lr: float, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train all modes and seeds, and return the figures of each run."""
    given = [f"--window={window}", f"--lr={lr!r}"]
    if args.hidden is not None:
        given.append(f"--hidden={args.hidden}")
    if task == _TEXT:
        results = _study_text(given, modes, args)
    else:
        if args.forget_bias is not None:
            given.append(f"--forget-bias={args.forget_bias!r}")
        results = _study_episodes(_TASKS[task], given, modes, args)
    return [{"task": task, "window": window, "lr": lr, **row} for row in results]


def _study_episodes(
    task: _StudiedTask, given: list[str], modes: Sequence[str], args: argparse.Namespace
) -> list[dict[str, Any]]:
    task_args = task.parser().parse_args(given)
    results = []
    for seed in args.seed:
        runs = [EpisodeRun(mode, seed, task.make(task_args), task_args) for mode in modes]
        for _ in range(args.steps):
            # In turn, so that changes in the speed of the machine affect all modes alike.
            for run in runs:
                run.train_step()
        results += [run.result() for run in runs]
    return results


def _study_text(
    given: list[str], modes: Sequence[str], args: argparse.Namespace
) -> list[dict[str, Any]]:
    unknown = [mode for mode in modes if mode not in language_runs.MODES]
    if unknown:
        raise TaskError(f"the task {_TEXT} has no mode {', '.join(unknown)}")
    task_args = char_language_model.parser().parse_args(given)
    text = language_runs.PennTreebank(task_args.data, list)
    evaluate_every = max(args.steps // _EVALUATIONS, 1)
    results = []
    for seed in args.seed:
        runs = [language_runs.LanguageRun(mode, seed, text, task_args) for mode in modes]
        for _ in range(args.steps):
            for run in runs:
                run.train_step()
                if run.steps % evaluate_every == 0:
                    run.evaluate()
        results += [run.result() for run in runs]
    return results


def _parser() -> options.Parser:
    parser = options.Parser(prog="python -m benchmarks.windows", description=__doc__)
    add = parser.add_argument
    tasks = [*_TASKS, *([_TEXT] if data_folder() else [])]
    add(
        "--task",
        type=names(tasks),
        default=[*_TASKS],
        metavar="TASK,...",
        help=f"tasks, of {', '.join(tasks)} (default: {','.join(_TASKS)}); "
        f"{_TEXT} needs the environment variable DNI_DATA",
    )
    add(
        "--window",
        type=numbers(int, 1),
        default=[2, 3, 5, 8],
        metavar="T,...",
        help="time steps of a window (default: 2,3,5,8)",
    )
    parser.add_modes(MODES, _DEFAULT_MODES)
    parser.add_seeds(range(1, 11))
    parser.add_steps(6000, "training steps of each network, a window each")
    add(
        "--lr",
        type=numbers(float, 0, exclusive=True),
        default=[3e-3],
        metavar="RATE,...",
        help="learning rates of the network (default: 3e-3)",
    )
    add("--forget-bias", type=float, help="initial bias of the forget gate (default: the task's)")
    parser.add_integer("--hidden", None, "width of the recurrent layer (default: the task's)")
    _add_file_options(parser)
    return parser


def _add_file_options(parser: options.Parser) -> None:
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write the figures of all runs to FILE")
    add(
        "--read",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="read the figures of earlier studies from files; do not train",
    )
    add("--plot", type=Path, metavar="FILE", help="write the plot to FILE")


def _run(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    for file in args.read:
        rows += json.loads(file.read_text())
    for task in args.task if not args.read else []:
        for window in args.window:
            for lr in args.lr:
                rows += study(task, window, args.mode, lr, args)
                if args.json is not None:
                    files.write_atomically(args.json, (json.dumps(rows) + "\n").encode())
    print(window_results.table(rows))
    if args.plot is not None:
        files.write_atomically(args.plot, window_results.plot(rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return its exit status."""
    parser = _parser()
    return options.run_program(parser, lambda: _run(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
