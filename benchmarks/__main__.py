"""Run benchmarks and print their tables."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from tasks.errors import TaskError
from tasks.files import write_atomically

from . import (
    calls,
    choices,
    compiled,
    feedback,
    individual,
    memory,
    overhead,
    parallel_parts,
    peers,
    pipeline,
    speed,
    widths,
)
from .report import describe_machine

#: Modules with ``run(device)``, which returns a table and its figures, and some with
#: ``plot(figures)``, which returns a PNG image.
BENCHMARKS: dict[str, Any] = {
    "overhead": overhead,
    "choices": choices,
    "memory": memory,
    "speed": speed,
    "widths": widths,
    "calls": calls,
    "compiled": compiled,
    "feedback": feedback,
    "individual": individual,
    "parallel_parts": parallel_parts,
    "peers": peers,
    "pipeline": pipeline,
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks that are named, all of them by default, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    machine = describe_machine()
    figures: dict[str, object] = {"machine": machine}
    print(machine)
    all_ran = True
    for name in options.names or BENCHMARKS:
        try:
            figures[name] = _run(name, options)
        except TaskError as error:
            if options.names:
                parser.error(f"{name}: {error}")
            all_ran = False
            print(f"\n{name}: not run: {error}", file=sys.stderr)
    if options.json:
        write_atomically(options.json, (json.dumps(figures, indent=2) + "\n").encode())
    return 0 if all_ran else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"benchmarks to run, of {', '.join(BENCHMARKS)} (default: all)",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device to train on (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, help="number of CPU threads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="DIR",
        help="write the plot of a benchmark that has one to NAME.png in DIR",
    )
    return parser


def _run(name: str, options: argparse.Namespace) -> object:
    """Run a benchmark, print its table, write its plot, and return its figures."""
    benchmark = BENCHMARKS[name]
    table, figures = benchmark.run(options.device)
    print(f"\n{name}: {(benchmark.__doc__ or '').splitlines()[0]}\n\n{table}")
    if options.plot and hasattr(benchmark, "plot"):
        write_atomically(options.plot / f"{name}.png", benchmark.plot(figures))
    return figures


if __name__ == "__main__":
    sys.exit(main())
