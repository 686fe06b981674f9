"""How a resumed run takes its options from its checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from . import options, output_folder
from .errors import TaskError

# These may differ when a run is resumed; the others determine its results.
_CHANGEABLE = {"steps", "epochs", "seconds", "out", "resume", "device", "data", "download", "cache"}
_CHANGEABLE |= {"plot_examples", "threads", "live", "sample"}


def parse(
    parser: options.Parser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """Return the options and, if a run is to be resumed, its checkpoint.

    A resumed run takes its options from the checkpoint; an option that is given must not differ.

    Raises:
        TaskError: Options contradict each other, or the checkpoint does not fit them.
    """
    args = parser.parse_args(argv)
    check_lengths(args)
    if not args.resume:
        return args, None
    if args.out is None:
        raise TaskError("--resume needs --out, the folder of the run to continue")
    checkpoint = output_folder.load_checkpoint(args.out)
    saved = checkpoint["options"]
    if checkpoint["task"] != args.task or {*saved} != {*determining_options(args)}:
        raise TaskError(f"the checkpoint in {args.out} is of another task or version")
    parser.set_defaults(**saved)
    args = parser.parse_args(argv)
    for name, value in saved.items():
        if getattr(args, name) != value:
            raise TaskError(
                f"--{name.rstrip('_').replace('_', '-')} differs from the run in {args.out}, "
                f"where it is {value!r}: omit it, or give another --out"
            )
    return args, checkpoint


def check_lengths(args: argparse.Namespace) -> None:
    """Check that one option at most says how long the training is.

    Raises:
        TaskError: Several do.
    """
    given = [f"--{name}" for name in ("steps", "epochs", "seconds") if getattr(args, name, None)]
    if len(given) > 1:
        raise TaskError(f"{' and '.join(given)} exclude each other: give one of them")


def determining_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that determine the results of a run, as plain data."""
    return {name: value for name, value in vars(args).items() if name not in _CHANGEABLE}
