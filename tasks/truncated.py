"""Recurrent nets on windows of long episodes: truncated backpropagation, and what looks further.

Episodes are longer than a window. A curriculum makes them longer still whenever the error has
become small; the largest length reached is the result.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from pytorch_dni import DNIError

from . import options, record, window_options
from .episodes import EpisodeTask, MODES, Run
from .options import TaskError


def parser(task: str, description: str) -> options.Parser:
    """The options of all tasks on windows."""
    made = options.Parser(prog=f"python -m tasks.{task}", description=description)
    made.set_defaults(task=task)
    add = made.add_argument
    add("--mode", type=options.several(MODES), default=["bptt", "bptt4", "dni"], metavar="MODE,...",
        help=f"what to compare, of {', '.join(MODES)} (default: bptt,bptt4,dni)")  # fmt: skip
    window_options.add(
        made,
        window=3,
        updates=3000,
        hidden=64,
        lr=3e-3,
        synthesizer_hidden=128,
        factor=1.0,
        bound=1.0,
    )
    add("--forget-bias", type=float, default=1.0,
        help="of the LSTM at the start (default: %(default)s)")  # fmt: skip
    add("--lambda", dest="lambda_", type=options.number(float, 0), default=0.9, metavar="LAMBDA",
        help="of lambda-returns and traces (default: %(default)s)")  # fmt: skip
    add("--auxiliary", type=options.number(float, 0), default=0.1,
        help="weight of the auxiliary task (default: %(default)s)")  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="folder for results.jsonl and curves.png")
    return made


def main(
    made: options.Parser,
    make: Callable[[argparse.Namespace], EpisodeTask],
    argv: Sequence[str] | None,
) -> int:
    """Run a task from its command line; errors end it with one line and exit status 2."""
    try:
        args = made.parse_args(argv)
        if args.out is not None and any((args.out / name).exists() for name in (_ROWS, _CURVES)):
            raise TaskError(f"{args.out} holds a run already: give another --out")
        task = make(args)
        runs = [Run(mode, seed, task, args) for seed in args.seed for mode in args.mode]
        _train(runs, args)
        print(summary(runs, args))
        if args.out is not None:
            _save(args.out, runs, f"{args.task}, windows of {args.window}")
    except (TaskError, DNIError) as error:
        made.error(str(error))
    except OSError as error:
        made.error(f"cannot write to --out: {error.strerror}")
    except KeyboardInterrupt:
        return 130
    return 0


_TURN = 50


def _train(runs: Sequence[Run], args: argparse.Namespace) -> None:
    """In turns, so that all meet the same noise of the machine."""
    total = args.seconds if args.seconds else args.updates
    with tqdm(total=total * len(runs), unit="s" if args.seconds else "update") as bar:
        going = list(runs)
        while going:
            for run in going:
                before = run.seconds if args.seconds else run.updates
                for _ in range(_TURN):
                    if (run.seconds if args.seconds else run.updates) >= total:
                        break
                    run.update()
                bar.update(min(run.seconds if args.seconds else run.updates, total) - before)
                bar.set_postfix_str(f"{run.mode}: {run.difficulty}, {run.error:.2f} bits")
            going = [r for r in going if (r.seconds if args.seconds else r.updates) < total]


def summary(runs: Sequence[Run], args: argparse.Namespace) -> str:
    """A table with a line for each mode."""
    rows = [["mode", "window", "solved, median", "of seeds", "updates", "ms/update"]]
    for mode in dict.fromkeys(run.mode for run in runs):
        own = [run for run in runs if run.mode == mode]
        solved = sorted(run.difficulty - 1 for run in own)
        window = {"bptt4": 4 * args.window, "full": "all"}.get(mode, args.window)
        rows.append(
            [
                mode,
                str(window),
                f"{statistics.median(solved):g}",
                " ".join(map(str, solved)),
                f"{statistics.median(run.updates for run in own):g}",
                f"{1e3 * sum(r.seconds for r in own) / sum(r.updates for r in own):.2f}",
            ]
        )
    return record.table(rows)


_ROWS, _CURVES = "results.jsonl", "curves.png"


def _save(folder: Path, runs: Sequence[Run], title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(run.row()) + "\n" for run in runs)
    record.replace(folder / _ROWS, lines.encode())
    panels = []
    for place, label in enumerate(("updates", "seconds")):
        curves = []
        for run in runs:
            ends = [*run.history, (run.updates, run.seconds, run.difficulty)]
            curves.append((run.mode, [end[place] for end in ends], [end[2] - 1 for end in ends]))
        panels.append((label, curves))
    picture = record.steps_picture(panels, "largest length solved", title, steps=True)
    record.replace(folder / _CURVES, picture)
