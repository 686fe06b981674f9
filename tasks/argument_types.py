"""Types of command-line arguments, and defaults that depend on the machine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

# Products of a few such sizes still fit into 64 bits, or are an error of PyTorch that is known.
LARGEST = 10**12


def number(
    kind: type, minimum: float, maximum: float = LARGEST, exclusive: bool = False
) -> Callable[[str], Any]:
    """Return an argument type: a number from ``minimum`` to ``maximum``.

    Args:
        kind: ``int`` or ``float``.
        minimum: The smallest number.
        maximum: The largest number.
        exclusive: Whether ``minimum`` itself is excluded.
    """
    name = "whole number" if kind is int else "number"
    bound = f"{'above' if exclusive else 'of at least'} {minimum}"

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        # NaN fails every comparison.
        large_enough = minimum < value if exclusive else minimum <= value
        if large_enough and value > maximum:
            raise argparse.ArgumentTypeError(
                f"must be a {name} of at most {_short(maximum)}, not {text!r}"
            )
        if not large_enough:
            raise argparse.ArgumentTypeError(f"must be a {name} {bound}, not {text!r}")
        return value

    return convert


def _short(value: float) -> str:
    """Return a number as text: 10,000, or 1e+12."""
    return f"{value:,}" if value < 10**9 else f"{value:g}"


def numbers(kind: type, minimum: float, exclusive: bool = False) -> Callable[[str], list[Any]]:
    """Return an argument type: numbers, separated by commas; arguments as in :func:`number`."""
    convert = number(kind, minimum, exclusive=exclusive)
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
