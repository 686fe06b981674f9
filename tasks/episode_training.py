"""Programs that train a recurrent network on windows of episodes with several modes.

A curriculum makes the episodes longer whenever the error is small; the largest length that was
solved is the result.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

from . import options, output_folder, plots, resuming
from .episodes import EpisodeRun, EpisodeTask, MAX_ERROR, MODES, WITH_RECORDED_WINDOWS
from .plots import HistoryEntry
from .window_options import window_parser
from .window_program import WindowProgram
from .window_training import milliseconds_per_step


def episode_parser(task: str, description: str | None) -> options.Parser:
    """Return a parser with the options of all tasks on episodes.

    Args:
        task: Name of the task's module.
        description: Description of the task.
    """
    parser = window_parser(
        task,
        description,
        MODES,
        ["bp", "bp4", "dni"],
        window=3,
        steps=3000,
        hidden=64,
        lr=3e-3,
        synthesizer_hidden=128,
        factor=1.0,
        bound=1.0,
        every="checkpoints",
    )
    parser.add_number(
        "--forget-bias",
        1.0,
        "initial bias of the LSTM's forget gate",
        minimum=-options.LARGEST,
    )
    parser.add_number(
        "--lambda",
        0.9,
        "lambda of lambda-returns and eligibility traces",
        positive=False,
        maximum=1,
        dest="lambda_",
        metavar="LAMBDA",
    )
    parser.add_number("--auxiliary", 0.1, "weight of the auxiliary task", positive=False)
    return parser


class EpisodeProgram(WindowProgram[EpisodeRun]):
    """Training on episodes.

    Args:
        args: Options of the program.
        task: Makes the episodes.
    """

    steps_per_block = 50

    def __init__(self, args: argparse.Namespace, task: EpisodeTask) -> None:
        super().__init__(args)
        self._task = task

    def make_runs(self) -> list[EpisodeRun]:
        """Return a run for each mode and seed."""
        args = self.args
        return [
            EpisodeRun(mode, seed, self._task, args) for seed in args.seed for mode in args.mode
        ]

    @property
    def header(self) -> list[str]:
        """Names of the figures."""
        return ["window", "solved length, median", "of each seed", "steps", "step ms"]

    @property
    def explanation(self) -> str:
        """What the figures mean."""
        return (
            "window: time steps that a training step sees. solved length: the largest one with "
            f"fewer than {MAX_ERROR} bits of error for each bit of the answer; the length then "
            "grows by one. step ms: time of a training step."
        )

    @property
    def value(self) -> str:
        """Name of the values in the history of a run."""
        return "length"

    def summary(self, runs: Sequence[EpisodeRun]) -> list[str]:
        """Return the figures of a mode; medians are over seeds."""
        solved = sorted(run.difficulty - 1 for run in runs)
        return [
            "all" if runs[0].window is None else str(runs[0].window),
            f"{statistics.median(solved):g}",
            " ".join(map(str, solved)),
            f"{statistics.median(run.steps for run in runs):g}",
            milliseconds_per_step(runs),
        ]

    def inexact(self) -> list[str]:
        """Return the modes that learn from several windows: those before are not kept."""
        return [mode for mode in self.args.mode if mode in WITH_RECORDED_WINDOWS]

    def draw(self) -> bytes:
        """Draw the solved lengths over training."""
        histories = [(run.mode, _solved_lengths(run)) for run in self.runs]
        title = f"{self.args.task}, windows of {self.args.window}"
        return plots.plot_histories(histories, "largest length solved", title, steps=True)


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

    def program() -> None:
        args, checkpoint = resuming.parse(parser, argv)
        folder = output_folder.OutputFolder(args.out, args.task, args.resume)
        EpisodeProgram(args, make_task(args)).train(folder, checkpoint)

    return options.run_program(parser, program, options.INTERRUPTED)


def _solved_lengths(run: EpisodeRun) -> list[HistoryEntry]:
    entries = [*run.history, HistoryEntry(run.steps, run.seconds, run.difficulty)]
    return [entry._replace(value=entry.value - 1) for entry in entries]
