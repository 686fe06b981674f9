"""Programs that train a recurrent network on windows of episodes with several modes.

A curriculum makes the episodes longer whenever the error is small; the largest length that was
solved is the result.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from . import files, options, plots, window_options
from .episodes import EpisodeRun, EpisodeTask, MODES
from .plots import HistoryEntry
from .tables import format_table
from .window_training import by_mode, milliseconds_per_update, train_in_turn

_RESULTS, _CURVES = "results.jsonl", "curves.png"
_UPDATES_PER_BLOCK = 50


def episode_parser(task: str, description: str | None) -> options.Parser:
    """Return a parser with the options of all tasks on episodes.

    Args:
        task: Name of the task's module.
        description: Description of the task.
    """
    parser = options.Parser(prog=f"python -m tasks.{task}", description=description)
    parser.set_defaults(task=task)
    parser.add_modes(MODES, ["bptt", "bptt4", "dni"])
    window_options.add_window_options(
        parser,
        window=3,
        updates=3000,
        hidden=64,
        lr=3e-3,
        synthesizer_hidden=128,
        factor=1.0,
        bound=1.0,
    )
    parser.add_argument(
        "--forget-bias",
        type=float,
        default=1.0,
        help="initial bias of the LSTM's forget gate (default: %(default)s)",
    )
    parser.add_number(
        "--lambda",
        0.9,
        "lambda of lambda-returns and eligibility traces",
        positive=False,
        dest="lambda_",
        metavar="LAMBDA",
    )
    parser.add_number("--auxiliary", 0.1, "weight of the auxiliary task", positive=False)
    parser.add_output_folder("results and curves")
    return parser


def run(
    parser: options.Parser,
    make_task: Callable[[argparse.Namespace], EpisodeTask],
    argv: Sequence[str] | None,
) -> int:
    """Run a task on episodes as a program and return its exit status.

    Args:
        parser: Parser of its options.
        make_task: Makes the task from the options.
        argv: Command-line arguments; None takes those of the process.
    """
    return options.run_program(parser, lambda: _train(parser.parse_args(argv), make_task))


def _train(
    args: argparse.Namespace, make_task: Callable[[argparse.Namespace], EpisodeTask]
) -> None:
    window_options.check_output_folder(args, _RESULTS, _CURVES)
    task = make_task(args)
    runs = [EpisodeRun(mode, seed, task, args) for seed in args.seed for mode in args.mode]
    train_in_turn(runs, args, _UPDATES_PER_BLOCK)
    print(summary(runs))
    if args.out is not None:
        with files.reporting_write_errors(args.out):
            _save(args.out, runs, f"{args.task}, windows of {args.window}")


def summary(runs: Sequence[EpisodeRun]) -> str:
    """Return a table with a row for each mode; medians are over seeds."""
    rows = [["mode", "window", "solved length, median", "of each seed", "updates", "ms/update"]]
    for mode, own in by_mode(runs).items():
        solved = sorted(run.difficulty - 1 for run in own)
        rows.append(
            [
                mode,
                "all" if own[0].window is None else str(own[0].window),
                f"{statistics.median(solved):g}",
                " ".join(map(str, solved)),
                f"{statistics.median(run.updates for run in own):g}",
                milliseconds_per_update(own),
            ]
        )
    return format_table(rows)


def _save(folder: Path, runs: Sequence[EpisodeRun], title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(run.result()) + "\n" for run in runs)
    files.write_atomically(folder / _RESULTS, lines.encode())
    histories = [(run.mode, _solved_lengths(run)) for run in runs]
    image = plots.plot_histories(histories, "largest length solved", title, steps=True)
    files.write_atomically(folder / _CURVES, image)


def _solved_lengths(run: EpisodeRun) -> list[HistoryEntry]:
    entries = [*run.history, HistoryEntry(run.updates, run.seconds, run.difficulty)]
    return [entry._replace(value=entry.value - 1) for entry in entries]
