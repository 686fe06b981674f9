"""A program that trains a recurrent network on windows with several modes, and can be resumed."""

from __future__ import annotations

import argparse
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pytorch_dni import DNIError

from . import output_folder, resuming, threads
from .announcement import announce
from .errors import TaskError
from .tables import format_table
from .window_training import by_mode, Length, train_in_turn, WindowRun

_Run = TypeVar("_Run", bound=WindowRun)


class WindowProgram(ABC, Generic[_Run]):
    """Training of a run for each mode and seed, its table and its files.

    Args:
        args: Options of the program.

    Attributes:
        steps_per_block: Number of steps that a run is trained before the next one is.
        other_files: Names of files besides those of all runs.
        args: The options.
        runs: The runs.
    """

    steps_per_block: ClassVar[int]
    other_files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.runs: list[_Run] = []

    @abstractmethod
    def make_runs(self) -> list[_Run]:
        """Return a run for each mode and seed."""

    @abstractmethod
    def summary(self, runs: Sequence[_Run]) -> list[str]:
        """Return the figures of a mode, given its runs."""

    @property
    @abstractmethod
    def header(self) -> list[str]:
        """Names of the figures."""

    @property
    @abstractmethod
    def explanation(self) -> str:
        """What the figures mean."""

    @property
    @abstractmethod
    def value(self) -> str:
        """Name of the values in the history of a run."""

    @abstractmethod
    def draw(self) -> bytes:
        """Return the curves as a PNG image."""

    def inexact(self) -> list[str]:
        """Return the modes that do not end as if they had not been interrupted."""
        return []

    def after_step(self, run: _Run) -> None:
        """Do what belongs after a training step."""

    def finish(self) -> None:
        """Do what belongs after the last step."""

    def others(self) -> Mapping[str, bytes]:
        """Return the content of :attr:`other_files`."""
        return {}

    def train(self, folder: output_folder.OutputFolder, checkpoint: dict[str, Any] | None) -> None:
        """Train all runs, print a table of them, and save.

        Raises:
            TaskError: The checkpoint does not fit, or files cannot be written.
        """
        self.runs = self.make_runs()
        length = self._length(checkpoint)
        if checkpoint is not None:
            self._resume(checkpoint, length)
        print(self._announcement(length))
        if checkpoint is not None and (modes := self.inexact()):
            print(f"not to the same end, because checkpoints hold no windows: {', '.join(modes)}")
        print(folder.create(), flush=True)
        saved = self._latest_step()

        def save_regularly() -> None:
            nonlocal saved
            if self._latest_step() // self.args.every > saved // self.args.every:
                saved = self._latest_step()
                self._save(folder, length)

        args = self.args
        train_in_turn(
            self.runs, length, self.steps_per_block, self.after_step, save_regularly, args.live
        )
        self.finish()
        self._save(folder, length)
        print(f"\n{self._table()}\n\n{textwrap.fill(self.explanation, 100)}")

    def _latest_step(self) -> int:
        return max(run.steps for run in self.runs)

    def _length(self, checkpoint: dict[str, Any] | None) -> Length:
        """Return how long the runs are trained: as options say, or as the run before was."""
        args = self.args
        if args.steps is None and args.seconds is None:
            if checkpoint is None:
                return Length(args.default_steps, None)
            return Length(**checkpoint["total"])
        return Length(args.steps, args.seconds)

    def _resume(self, checkpoint: dict[str, Any], length: Length) -> None:
        try:
            for run, state in zip(self.runs, checkpoint["runs"], strict=True):
                run.load_state_dict(state)
        except (DNIError, RuntimeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise TaskError(f"the checkpoint does not fit this run: {error}") from error
        if length.steps is not None and length.steps < self._latest_step():
            raise TaskError(
                f"the checkpoint is at step {self._latest_step()} already, beyond step "
                f"{length.steps}"
            )

    def _announcement(self, length: Length) -> str:
        """Set the number of threads, and return what will be trained, as text."""
        run = self.runs[0]
        network = run.new_network()
        count = sum(parameter.numel() for parameter in network.parameters())
        number = threads.use(self.args.threads, network, run.example_input())
        text = (
            f"for {length.seconds:g} s each" if length.steps is None else f"to step {length.steps}"
        )
        return announce(self.args, [*by_mode(self.runs)], count, number, text, self._latest_step())

    def _table(self) -> str:
        groups = by_mode(self.runs)
        rows = [[mode, *self.summary(own)] for mode, own in groups.items()]
        table = format_table([["mode", *self.header], *rows]).splitlines()
        for line, own in enumerate(groups.values(), 2):
            if any(run.diverged() for run in own):
                table[line] += "   fails: its loss is not finite; give a smaller --lr"
        return "\n".join(table)

    def _rows(self) -> Iterable[dict[str, Any]]:
        for run in self.runs:
            for entry in run.history:
                row = {"step": entry.steps, "mode": run.mode, "seed": run.seed}
                yield {**row, "seconds": entry.seconds, self.value: entry.value}

    def _save(self, folder: output_folder.OutputFolder, length: Length) -> None:
        rows = list(self._rows())
        state = {
            "task": self.args.task,
            "options": resuming.determining_options(self.args),
            "total": length._asdict(),
            "step": self._latest_step(),
            "runs": [run.state_dict() for run in self.runs],
            "history": rows,
        }
        folder.save(state, rows, self.draw, self.others())
