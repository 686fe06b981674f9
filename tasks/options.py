"""Command-line options of the programs: a parser, types of arguments, and how a program ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from pytorch_dni import DNIError

from .errors import TaskError


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")

    def add_integer(
        self, name: str, default: int | None, help: str, *, minimum: int = 1, **settings: Any
    ) -> None:
        """Add an option that takes a whole number of at least ``minimum``.

        Further settings are those of ``add_argument``.
        """
        self._add(name, number(int, minimum), default, help, settings)

    def add_number(
        self,
        name: str,
        default: float | None,
        help: str,
        *,
        positive: bool = True,
        **settings: Any,
    ) -> None:
        """Add an option that takes a finite number: a positive one, or one that may be 0.

        Further settings are those of ``add_argument``.
        """
        self._add(name, number(float, 0, exclusive=positive), default, help, settings)

    def add_modes(self, modes: Mapping[str, str], default: Sequence[str] | None = None) -> None:
        """Add the option ``--mode``.

        Args:
            modes: Names and descriptions of the modes.
            default: Names of the modes that are compared by default; None for all.
        """
        descriptions = "; ".join(f"{mode}: {text}" for mode, text in modes.items())
        self.add_argument(
            "--mode",
            type=names(modes),
            default=[*(modes if default is None else default)],
            metavar="MODE,...",
            help=f"modes to compare (default: {','.join(default or ['all'])}). {descriptions}",
        )

    def add_seeds(self) -> None:
        """Add the option ``--seed``."""
        self.add_argument(
            "--seed",
            type=seeds,
            default=[1],
            metavar="SEED,...",
            help="seeds of weights and data; the table summarises all of them (default: 1)",
        )

    def add_device(self) -> None:
        """Add the option ``--device``."""
        self.add_argument(
            "--device",
            type=device,
            default=default_device(),
            help="device to train on (default: %(default)s)",
        )

    def add_output_folder(self, content: str) -> None:
        """Add the option ``--out``, a folder for what ``content`` says."""
        self.add_argument("--out", type=Path, metavar="DIR", help=f"folder for {content}")

    def _add(
        self,
        name: str,
        kind: Callable[[str], Any],
        default: Any,
        help: str,
        settings: dict[str, Any],
    ) -> None:
        if default is not None:
            help += " (default: %(default)s)"
        self.add_argument(name, type=kind, default=default, help=help, **settings)


def number(kind: type, minimum: float, exclusive: bool = False) -> Callable[[str], Any]:
    """Return an argument type: a finite number of at least ``minimum``.

    Args:
        kind: ``int`` or ``float``.
        minimum: The smallest number.
        exclusive: Whether ``minimum`` itself is excluded.
    """

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        # NaN fails every comparison.
        large_enough = minimum < value if exclusive else minimum <= value
        if not large_enough or value == float("inf"):
            name = "whole number" if kind is int else "number"
            bound = f"{'above' if exclusive else 'of at least'} {minimum}"
            raise argparse.ArgumentTypeError(f"must be a {name} {bound}, not {text!r}")
        return value

    return convert


def numbers(kind: type, minimum: float, exclusive: bool = False) -> Callable[[str], list[Any]]:
    """Return an argument type: numbers, separated by commas; arguments as in :func:`number`."""
    convert = number(kind, minimum, exclusive)
    return lambda text: [convert(part) for part in text.split(",")]


def names(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """Return an argument type: names out of ``choices``, separated by commas."""
    known = list(choices)

    def convert(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"unknown: {name!r}; choose from {', '.join(known)}"
                )
        return list(dict.fromkeys(chosen))

    return convert


def seeds(text: str) -> list[int]:
    """Convert an argument, whole numbers separated by commas; leave out repeated ones."""
    return list(dict.fromkeys(numbers(int, 0)(text)))


def device(text: str) -> torch.device:
    """Convert an argument, the name of an available device."""
    try:
        found = torch.device(text)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, ImportError):
        raise argparse.ArgumentTypeError(f"{text!r} is not an available device") from None
    return found


def default_device() -> torch.device:
    """Return the accelerator if there is one, or else the CPU."""
    available = torch.accelerator.is_available()
    found = torch.accelerator.current_accelerator() if available else None
    return torch.device("cpu") if found is None else found


def data_folder() -> Path | None:
    """Return the folder that the environment variable ``DNI_DATA`` names."""
    folder = os.environ.get("DNI_DATA")
    return Path(folder) if folder else None


def run_program(parser: Parser, program: Callable[[], None], when_interrupted: str = "") -> int:
    """Run a program and return its exit status.

    Args:
        parser: Reports an error that the user can correct, in one line, and exits with status 2.
        program: The program.
        when_interrupted: Message when Ctrl-C ends the program, whose exit status is then 130.
    """
    try:
        program()
    except (TaskError, DNIError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        if when_interrupted:
            print(when_interrupted, file=sys.stderr)
        return 130
    return 0
