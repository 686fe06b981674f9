"""Command-line options of the comparisons."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from . import options
from .modes import Configuration, DEFAULT_MODES, MODES

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
    parser.add_steps(None, f"training steps of each network (default: {default_length})")
    parser.add_training(batch=batch, samples="samples", lr=lr, whose="the network, in all modes")
    decay = "let the learning rate fall to zero over the run, along half a period of a cosine"
    parser.add_argument("--decay", action="store_true", help=decay)
    parser.add_grad_lr()
    parser.add_seeds()
    parser.add_integer("--every", every, "training steps between evaluations")
    parser.add_device()
    parser.add_threads()
    parser.add_live()
    parser.add_output_folder("metrics, checkpoint and curves", f"a new one, runs/{task}")
    parser.add_resume()
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
