"""Run all rows and write the page on compatibility: ``python -m tests.matrix.record``.

It needs the packages of ``requirements-matrix.txt``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from tests.matrix.page import PAGE, pinned, render
from tests.matrix.row import WAYS
from tests.matrix.rows import by_name, GROUPS
from tests.matrix.run import run


def failures() -> list[str]:
    """Run all rows on all ways, and return what was not as expected."""
    found = []
    for row in by_name().values():
        began = time.perf_counter()
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    run(row, way, Path(folder))
                except Exception as error:
                    found.append(f"{row.name}, {way}: {type(error).__name__}: {error}")
        print(f"{time.perf_counter() - began:6.1f} s  {row.name}", flush=True)
    return found


def write(page: Path) -> None:
    """Write the page in one step."""
    text = render(GROUPS, {name: version(name).partition("+")[0] for name in pinned()})
    new = page.with_suffix(".new")
    new.write_text(text)
    os.replace(new, page)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 1 where a row is not as expected, and nothing was written."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix.record", description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = failures()
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    write(args.page)
    print(f"{len(by_name())} rows in {args.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
