"""Record the results of the present code: ``python -m tests.golden.record``."""

import json
import sys
from pathlib import Path

import torch

from .cases import CASES
from .results import fingerprint, result

HERE = Path(__file__).parent


def main(path=HERE / "golden.json"):
    """Run all cases and write one line for each."""
    torch.set_num_threads(1)
    head = json.dumps(fingerprint())
    rows = [f"{json.dumps(name)}: {json.dumps(result(case))}" for name, case in CASES.items()]
    path.write_text(f'{{"machine": {head},\n"cases": {{\n' + ",\n".join(rows) + "\n}}\n")
    print(f"{len(rows)} cases in {path}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
