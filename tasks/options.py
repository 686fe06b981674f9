"""Command lines: the options that all tasks share, and what is wrong with them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from .modes import MODES

# Where and how far a run goes; all other options make it what it is, and hold when it is resumed.
_FREE = {"steps", "epochs", "out", "resume", "device", "data", "download"}


class TaskError(Exception):
    """Something the user can put right: told in one line, with exit status 2."""


class Parser(argparse.ArgumentParser):
    """Tells errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def number(kind: type, least: float, above: bool = False) -> Callable[[str], Any]:
    """A type for argparse: a finite number of at least (or above) ``least``."""

    def convert(text: str) -> Any:
        wanted = f"{'above' if above else 'of at least'} {least}"
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        # Not a number fails every comparison.
        if not (least < value if above else least <= value) or value == float("inf"):
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"must be a {name} {wanted}, not {text!r}")
        return value

    return convert


def several(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """A type for argparse: names out of ``choices``, separated by commas."""

    def convert(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(
                    f"unknown: {name!r}; choose from {', '.join(choices)}"
                )
        return list(dict.fromkeys(names))

    return convert


def seeds(text: str) -> list[int]:
    """A type for argparse: whole numbers separated by commas."""
    return list(dict.fromkeys(number(int, 0)(part) for part in text.split(",")))


def device(text: str) -> torch.device:
    """A type for argparse: a device that works."""
    try:
        found = torch.device(text)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, ImportError):
        raise argparse.ArgumentTypeError(f"{text!r} is no device that works here") from None
    return found


def default_device() -> torch.device:
    """An accelerator if there is one."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None else found


def shared(
    task: str,
    description: str,
    *,
    batch: int,
    every: int,
    length: str,
    modes: Sequence[str] = MODES,
) -> Parser:
    """A parser with the options that all tasks have.

    Args:
        task: Name of the module.
        description: What the task is.
        batch: Default size of a batch.
        every: Default number of steps between evaluations.
        length: How long the task runs by default, in words.
        modes: What the task compares.
    """
    parser = Parser(prog=f"python -m tasks.{task}", description=description)
    parser.set_defaults(task=task)
    add = parser.add_argument
    add("--mode", type=several(modes), default=list(modes), metavar="MODE,...",
        help=f"what to compare: {', '.join(modes)} (default: all)")  # fmt: skip
    add("--steps", type=number(int, 1), help=f"training steps (default: {length})")
    add("--batch", type=number(int, 2), default=batch, help="samples a step (default: %(default)s)")
    add("--lr", type=number(float, 0, above=True),
        help="the network's learning rate in all modes (default: each mode's own)")  # fmt: skip
    add("--grad-lr", type=number(float, 0, above=True),
        help="the synthesizers' learning rate (default: their own)")  # fmt: skip
    add("--seed", type=seeds, default=[1], metavar="SEED,...",
        help="weights and data; several give means over them (default: 1)")  # fmt: skip
    add("--every", type=number(int, 1), default=every,
        help="steps between evaluations (default: %(default)s)")  # fmt: skip
    add("--device", type=device, default=None, help="default: an accelerator if there is one")
    add("--out", type=Path, metavar="DIR", help="folder for metrics, checkpoint and curves")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    return parser


def parse(
    parser: Parser, argv: Sequence[str] | None, load: Callable[[Path], dict[str, Any]]
) -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """The options, and the checkpoint to go on from, read by ``load``, if one is asked for.

    A resumed run takes its options from the checkpoint; one given again must be the same.
    """
    args = parser.parse_args(argv)
    if args.steps is not None and getattr(args, "epochs", None) is not None:
        raise TaskError("--steps and --epochs exclude each other: give one of them")
    checkpoint = None
    if args.resume:
        if args.out is None:
            raise TaskError("--resume needs --out, the folder to go on from")
        checkpoint = load(args.out)
        if checkpoint["task"] != args.task or {*checkpoint["options"]} != {*binding(args)}:
            raise TaskError(f"the checkpoint in {args.out} is of another task or version")
        parser.set_defaults(**checkpoint["options"])
        args = parser.parse_args(argv)
        for name, value in checkpoint["options"].items():
            if getattr(args, name) != value:
                raise TaskError(
                    f"--{name.replace('_', '-')} differs from the run in {args.out}, "
                    f"which has {value!r}: leave it away, or give another --out"
                )
    if args.device is None:
        args.device = default_device()
    return args, checkpoint


def binding(args: argparse.Namespace) -> dict[str, Any]:
    """The options that make a run what it is, as plain data."""
    return {name: value for name, value in vars(args).items() if name not in _FREE}
