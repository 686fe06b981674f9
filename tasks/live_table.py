"""A table of the figures of ``stats()`` that is refreshed in place below a progress bar."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TextIO

from torch import nn
from tqdm import tqdm

from pytorch_dni.monitor import figures

from .tables import format_table

HEADER = ("mode", "train loss", "cut", "cosine", "norm ratio", "explained")
_FIGURES = ("loss", "cosine", "norm_ratio")


class Trained(NamedTuple):
    """A network that is being trained.

    Attributes:
        label: Name of its mode.
        loss: Loss of its last training step; None before the first one.
        model: The network.
    """

    label: str
    loss: float | None
    model: nn.Module


class LiveTable:
    """Lines below a progress bar.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[tqdm[Any]] = []

    def show(self, rows: Sequence[Sequence[str]]) -> None:
        """Replace the table, as far as it fits into the terminal."""
        columns, height = shutil.get_terminal_size()
        lines = format_table(rows).splitlines()
        room = max(height - 3, 3)  # the bar is above, the cursor below
        if len(lines) > room:
            lines = [*lines[: room - 1], f"... and {len(lines) - room + 1} more rows"]
        while len(self._lines) < len(lines):
            self._lines.append(self._new_line())
        shown = lines + [""] * (len(self._lines) - len(lines))
        for line, text in zip(self._lines, shown, strict=True):
            line.set_description_str(text[: columns - 1])

    def _new_line(self) -> tqdm[Any]:
        position = len(self._lines) + 1
        return tqdm(total=0, position=position, bar_format="{desc}", leave=False, file=self._stream)

    def close(self) -> None:
        """Erase the table."""
        for line in reversed(self._lines):
            line.close()
        self._lines = []


def rows(networks: Iterable[Trained]) -> list[Sequence[str]]:
    """Return the rows of a table: a row for each cut, and the loss of each network."""
    table: list[Sequence[str]] = [HEADER]
    for label, loss, model in networks:
        first = [label, "-" if loss is None else f"{loss:.4f}"]
        for cut, found in by_cut(model).items() or [("-", {})]:
            table.append([*first, cut, *(_formatted(found, figure) for figure in _FIGURES[1:])])
            table[-1] = [*table[-1], f"{100 * (1 - found['loss']):.0f} %" if found else "-"]
            first = ["", ""]
    return table


def by_cut(model: nn.Module) -> dict[str, dict[str, float]]:
    """Return the figures of each cut that has been trained; none without synthetic gradients."""
    named = figures(model, "")
    if not named and callable(stats := getattr(model, "stats", None)):
        # A network with interfaces of its own.
        for cut, own in stats().items():
            values = {f"{cut}/{name}": getattr(own, name) for name in _FIGURES}
            named |= {name: value for name, value in values.items() if value == value}
    cuts: dict[str, dict[str, float]] = {}
    for name, value in named.items():
        cut, _, figure = name.rpartition("/")
        cuts.setdefault(cut, {})[figure] = value
    return {cut: found for cut, found in cuts.items() if {*_FIGURES} <= {*found}}


def _formatted(found: dict[str, float], figure: str) -> str:
    return f"{found[figure]:.2f}" if found else "-"
