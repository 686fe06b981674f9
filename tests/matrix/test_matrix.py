"""Every row on every way; ``pytest -m matrix`` runs those that take long or need other packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.row import Row, WAYS
from tests.matrix.rows import by_name
from tests.matrix.run import run


def cases() -> list[object]:
    marks = {True: [pytest.mark.matrix], False: []}
    return [
        pytest.param(row, way, marks=marks[row.marked], id=f"{row.name.replace('`', '')}-{way}")
        for row in by_name().values()
        for way in WAYS
    ]


@pytest.mark.parametrize(("row", "way"), cases())
def test_a_row_is_as_expected(row: Row, way: str, tmp_path: Path) -> None:
    run(row, way, tmp_path)
