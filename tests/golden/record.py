"""Record the results of the present code: ``python -m tests.golden.record``.

With ``--new`` only the cases that have no recording yet are run.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from .cases import CASES
from .results import fingerprint, result

HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None):
    """Run all cases, or the new ones, and write one line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.record", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=HERE / "golden.json")
    parser.add_argument("--new", action="store_true", help="keep the recordings that FILE holds")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = {}
    if args.new:
        recorded = json.loads(args.file.read_text())
        if recorded["machine"] != fingerprint():
            parser.error(f"{args.file} was recorded on another machine: record all cases again")
        found = recorded["cases"]
    rows = []
    for name, case in CASES.items():
        row = found[name] if name in found else result(case)
        rows.append(f"{json.dumps(name)}: {json.dumps(row)}")
    head = json.dumps(fingerprint())
    args.file.write_text(f'{{"machine": {head},\n"cases": {{\n' + ",\n".join(rows) + "\n}}\n")
    print(f"{len(rows)} cases in {args.file}, {len(rows) - len(found)} of them new")


if __name__ == "__main__":
    main()
