"""The progress bar of a training, which counts what was asked for, and a live table below it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from .live_table import LiveTable

_REFRESH = 0.5  # seconds from one refreshed table to the next
Rows = Callable[[], Sequence[Sequence[str]]]


class Progress:
    """A bar that counts to the training steps, or seconds, that were asked for.

    Several runs are trained in turn: a step counts when all of them have taken it.

    Args:
        total: Number of steps, or seconds.
        done: How many of them were done before.
        runs: Number of runs that are trained.
        unit: ``"step"`` or ``"s"``.
        epochs: Number of epochs that the steps make up, if epochs were asked for.
        rows: Returns the rows of the live table; None for no table.
    """

    def __init__(
        self,
        total: float,
        done: float = 0,
        runs: int = 1,
        unit: str = "step",
        epochs: int | None = None,
        rows: Rows | None = None,
    ) -> None:
        figures = "{n:.1f}/{total:.1f}" if unit == "s" else "{n:.0f}/{total:.0f}"
        self._bar: tqdm[Any] = tqdm(
            file=sys.stderr,
            total=total,
            initial=done,
            unit=unit,
            mininterval=_REFRESH,
            dynamic_ncols=True,
            bar_format="{desc}{percentage:3.0f}%|{bar}| "
            + figures
            + " [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        )
        self._total, self._done, self._first, self._runs = total, done, done, runs
        self._epochs, self._shown_epoch = epochs, 0
        # A table that is refreshed in place needs a terminal.
        self._table = LiveTable(sys.stderr) if rows and sys.stderr.isatty() else None
        self._rows, self._next_table = rows, 0.0
        self._started = time.monotonic()
        self._measured = 0.0
        self._show_epoch()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._table is not None:
            self._table.close()
        self._bar.close()

    def advance(self, amount: float) -> bool:
        """Count steps, or seconds, of one run; return whether the bar was refreshed."""
        # Sums of fractions may miss a whole number by a rounding error.
        self._done = min(round(self._done + amount / self._runs, 9), self._total)
        self._show_epoch()
        refreshed = bool(self._bar.update(self._done - self._bar.n))
        self._refresh_table()
        return refreshed

    def show(self, text: str) -> None:
        """Show the figures of a run behind the bar."""
        self._bar.set_postfix_str(text)

    def block_ended(self) -> None:
        """Note that all runs have been trained on a block; after two, say how long it will take.

        The first block is slower than the others, because much is made at its first step.
        """
        now, done = time.monotonic(), self._done
        if not self._measured:
            self._started, self._first, self._measured = now, done, done
        elif self._measured == self._first and self._first < done < self._total:
            self._measured = done
            seconds = (now - self._started) / (done - self._first) * (self._total - done)
            tqdm.write(f"about {duration(seconds)} to go, by the time of the first steps")

    def _show_epoch(self) -> None:
        if self._epochs is None:
            return
        epoch = min(int(self._done * self._epochs / self._total + 1e-9) + 1, self._epochs)
        if epoch != self._shown_epoch:
            self._shown_epoch = epoch
            self._bar.set_description_str(f"epoch {epoch} of {self._epochs} ", refresh=False)

    def _refresh_table(self) -> None:
        now = time.monotonic()
        if self._table is not None and self._rows is not None and now >= self._next_table:
            self._table.show(self._rows())
            self._next_table = time.monotonic() + _REFRESH


def duration(seconds: float) -> str:
    """Return a duration as text, in a unit that suits it."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
