"""Command-line options of the programs that train a recurrent network on windows."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import files, options
from .cells import CELLS


def add_window_options(
    parser: options.Parser,
    *,
    window: int,
    updates: int,
    hidden: int,
    lr: float,
    synthesizer_hidden: int,
    factor: float,
    bound: float | None,
) -> None:
    """Add the options to a parser; the other arguments are the defaults of the options."""
    parser.add_integer("--window", window, "steps of a window", metavar="T")
    parser.add_integer("--updates", updates, "windows to train on")
    parser.add_number(
        "--seconds", None, "training time of each run in seconds, instead of --updates"
    )
    parser.add_seeds()
    parser.add_argument(
        "--cell", choices=[*CELLS], default="lstm", help="recurrent layer (default: %(default)s)"
    )
    parser.add_integer("--hidden", hidden, "width of the recurrent layer")
    parser.add_integer("--batch", 32, "sequences in a batch", minimum=2)
    parser.add_number("--lr", lr, "learning rate of the network")
    parser.add_number("--clip", 1.0, "maximum norm of the gradient, 0 for none", positive=False)
    parser.add_number("--grad-lr", 3e-3, "learning rate of the synthesizers")
    parser.add_integer("--synthesizer-hidden", synthesizer_hidden, "width of the synthesizers")
    parser.add_number(
        "--factor", factor, "factor of the synthetic gradient of the state", positive=False
    )
    parser.add_number(
        "--bound",
        bound,
        "maximum norm of the synthetic gradient, relative to the true gradient within a window",
    )


def check_output_folder(args: argparse.Namespace, *names: str) -> None:
    """Check that the folder ``--out``, if it is given, holds none of the files.

    Raises:
        TaskError: It holds one of them.
    """
    folder: Path | None = args.out
    if folder is not None:
        files.check_unused(folder, names, "give another --out")
