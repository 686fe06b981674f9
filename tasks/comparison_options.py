"""Command-line options of the comparisons, and how a resumed run takes them from its checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from . import options, output_folder
from .errors import TaskError
from .modes import Configuration, DEFAULT_MODES, MODES

# These may differ when a run is resumed; the others determine its results.
_CHANGEABLE = {"steps", "epochs", "out", "resume", "device", "data", "download", "cache"}
_CHANGEABLE |= {"plot_examples"}
_LEARNING_RATE = 1e-3  # of the tasks on which all modes have the same settings


def comparison_parser(
    task: str,
    description: str | None,
    *,
    batch: int,
    every: int,
    default_length: str,
    lr: float,
    modes: Mapping[str, str] = MODES,
    default_modes: Sequence[str] | None = None,
) -> options.Parser:
    """Return a parser with the options of all comparisons.

    Args:
        task: Name of the task's module.
        description: Description of the task.
        batch: Default of ``--batch``.
        every: Default of ``--every``.
        default_length: Length of a run if no option says it, for the help text.
        lr: Default of ``--lr``, for all modes.
        modes: Names and descriptions of the modes that can be compared.
        default_modes: Default of ``--mode``; None for all.
    """
    parser = options.Parser(prog=f"python -m tasks.{task}", description=description)
    parser.set_defaults(task=task, epochs=None)
    parser.add_modes(modes, default_modes)
    parser.add_integer("--steps", None, f"training steps (default: {default_length})")
    parser.add_integer("--batch", batch, "samples in a training step", minimum=2)
    parser.add_number("--lr", lr, "learning rate of the network, the same for all modes")
    decay = "let the learning rate fall to zero over the run, along half a period of a cosine"
    parser.add_argument("--decay", action="store_true", help=decay)
    grad_lr = "learning rate of the synthesizers (default: depends on their class)"
    parser.add_number("--grad-lr", None, grad_lr)
    parser.add_seeds()
    parser.add_integer("--every", every, "training steps between evaluations")
    parser.add_device()
    parser.add_output_folder("metrics, checkpoint and curves")
    resume = "continue the run of the checkpoint in --out"
    parser.add_argument("--resume", action="store_true", help=resume)
    return parser


def equal_comparison_parser(
    task: str, description: str | None, *, batch: int, every: int, default_length: str
) -> options.Parser:
    """Return a parser for a task on which all modes have the same settings.

    It has the options of :func:`comparison_parser`, whose arguments these are, and ``--parts``.
    The rows of the comparison are those of :func:`equal_configurations`.
    """
    parser = comparison_parser(
        task,
        description,
        batch=batch,
        every=every,
        default_length=default_length,
        default_modes=DEFAULT_MODES,
        lr=_LEARNING_RATE,
    )
    parser.add_integer(
        "--parts",
        None,
        "number of parts of about equal cost into which the network is cut "
        "(default: the cuts of the task)",
        minimum=2,
        metavar="N",
    )
    return parser


def equal_configurations(args: argparse.Namespace) -> list[Configuration]:
    """Return a row for each mode; all have the same settings."""
    dni_arguments = {"grad_lr": args.grad_lr}
    return [Configuration(mode, args.lr, None, dni_arguments) for mode in args.mode]


def parse(
    parser: options.Parser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """Return the options and, if a run is to be resumed, its checkpoint.

    A resumed run takes its options from the checkpoint; an option that is given must not differ.

    Raises:
        TaskError: Options contradict each other, or the checkpoint does not fit them.
    """
    args = parser.parse_args(argv)
    if args.steps is not None and args.epochs is not None:
        raise TaskError("--steps and --epochs exclude each other: give one of them")
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
                f"--{name.replace('_', '-')} differs from the run in {args.out}, "
                f"where it is {value!r}: omit it, or give another --out"
            )
    return args, checkpoint


def determining_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that determine the results of a run, as plain data."""
    return {name: value for name, value in vars(args).items() if name not in _CHANGEABLE}
