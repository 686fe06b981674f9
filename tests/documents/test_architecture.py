"""The table of promises names files and tests that exist, and few files for each promise."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_FILES = {"default": 2, "eager": 3, "windows": 3}


def promises():
    """Return the rows of the table: promise, way, files, and test."""
    rows = []
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1] in MOST_FILES:
            files = re.findall(r"`([^`]+)`", cells[2])
            (test,) = re.findall(r"`([^`]+)`", cells[3])
            rows.append((cells[0], cells[1], files, test))
    return rows


def test_each_way_has_promises():
    ways = [way for _, way, _, _ in promises()]
    assert all(ways.count(way) >= 5 for way in MOST_FILES)


@pytest.mark.parametrize("row", promises(), ids=lambda row: row[0])
def test_a_promise_is_kept_in_few_files_and_guarded_by_a_test(row):
    _, way, files, test = row
    assert 1 <= len(files) <= MOST_FILES[way]
    for file in files:
        assert (ROOT / "pytorch_dni" / file).is_file(), file
    path, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_room_is_described():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [path.name for path in (ROOT / "pytorch_dni").iterdir() if path.is_dir()]
    files = [path.name for path in (ROOT / "pytorch_dni").glob("*.py")]
    for room in rooms:
        assert room.startswith("__") or f"`{room}/`" in text, room
    for file in files:
        assert file == "__init__.py" or f"`{file}`" in text, file
