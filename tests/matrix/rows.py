"""All rows by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.matrix import (
    bad_input,
    calls,
    inside,
    language,
    loops,
    objectives,
    packages,
    processes,
    unusual_steps,
    vision,
)
from tests.matrix.row import Row

GROUPS: Mapping[str, Sequence[Row]] = {
    "Networks of images": vision.ROWS,
    "Networks of text": language.ROWS,
    "Training loops": [
        *loops.ROWS,
        *objectives.ROWS,
        *unusual_steps.ROWS,
        *packages.ROWS,
    ],
    "PyTorch's machinery": [*processes.ROWS, *calls.ROWS, *inside.ROWS],
    "Bad input": bad_input.ROWS,
}


def by_name() -> dict[str, Row]:
    """Return all rows by their names."""
    return {row.name: row for rows in GROUPS.values() for row in rows}
