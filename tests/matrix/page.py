"""The page on compatibility, made of the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.matrix.row import Expected, PyTorchError, Refused, Row, WAYS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
REQUIREMENTS = [ROOT / "requirements.txt", ROOT / "requirements-matrix.txt"]

HEAD = """# Compatibility

What people train, and how, on four ways to learn. `pytest -m "matrix or not matrix" tests/matrix`
tests each row on each way, and `python -m tests.matrix.record` writes this page when all of them
pass. The networks are small ones of random weights. Versions:
{versions}.

```python
from pytorch_dni import DNI


def ways(make):
    yield DNI(make())  # "default": unlock="backward"
    yield DNI(make(), unlock="update")
    yield DNI(make(), eager=True)
    yield DNI(make(), exact_every=2)
```

A cell says:

- **works**: parameters, their gradients and buffers equal those of backpropagation, bit for bit,
  where gradients are exact (`bp_lambda=1`; with `exact_every`, exact steps alone). In a step from
  synthetic gradients, every parameter moves that backpropagation moves. Then `unwrap()` returns the
  network as it was: no hook, the same keys, the same outputs and gradients.
- **error N**: one `DNIError`; below the table is a part of its text. It is raised in the
  constructor or in the forward pass, and parameters, buffers, hooks and random numbers are as they
  were. "In the backward pass": parameters are as they were. With the arguments that follow, the way
  works.
- **PyTorch N**: the network raises this error without the wrapper, too. With the wrapper, it raises
  the same error or a `DNIError`.
"""


class _Errors:
    """Numbers the errors of a table."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, message: str) -> int:
        return self._numbers.setdefault(message, len(self._numbers) + 1)

    def lines(self) -> list[str]:
        return [f"{number}. `... {message} ...`" for message, number in self._numbers.items()]


def render(groups: Mapping[str, Sequence[Row]], versions: Mapping[str, str]) -> str:
    """Return the page on some rows, tested with some versions of packages."""
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [HEAD.format(versions=named)]
    for title, rows in groups.items():
        parts.append(f"## {title}\n\n" + "\n".join(_table(rows)) + "\n")
    return "\n".join(parts)


def _table(rows: Iterable[Row]) -> list[str]:
    head = ["what", *(way.title for way in WAYS.values()), "remark"]
    errors = _Errors()
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        cells = [_cell(row.expects(way), errors) for way in WAYS]
        lines.append(_line([row.name, *cells, row.remark]))
    listed = errors.lines()
    return [*lines, *(["", *listed] if listed else [])]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(expected: Expected, errors: _Errors) -> str:
    if isinstance(expected, PyTorchError):
        return f"PyTorch {errors.number(expected.message)}"
    if not isinstance(expected, Refused):
        return "works"
    cell = f"error {errors.number(expected.message)}"
    if expected.in_backward:
        cell += " in the backward pass"
    if expected.instead is not None:
        given = ", ".join(f"{name}={_value(value)}" for name, value in expected.instead.items())
        cell += f"; works with `{given}`"
    return cell


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (str, list)) else repr(value)


def versions_on(page: str) -> dict[str, str]:
    """Return the versions that a page names."""
    found = re.search(r"Versions:\n(.*)\.\n", page)
    assert found is not None
    return dict(entry.split() for entry in found[1].split(", "))


def pinned() -> dict[str, str]:
    """Return the versions of the packages that rows need, as the requirements pin them."""
    text = "".join(path.read_text() for path in REQUIREMENTS)
    pins: dict[str, str] = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))
    names = ["torch", "torchvision"]
    names += re.findall(r"^([\w-]+)==", REQUIREMENTS[1].read_text(), re.MULTILINE)
    return {name: pins[name] for name in names}
