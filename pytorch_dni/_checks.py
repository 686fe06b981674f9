"""Checks of arguments: each raises an error that names the argument, and what it must be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from .errors import DNIError


def check_whole(
    name: str, value: object, least: int | None = None, error: type[DNIError] = DNIError
) -> None:
    """Raise ``error`` where a value is no whole number, or below the least one allowed."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and (least is None or value >= least):  # type: ignore[operator]
        return
    kind = {None: "a whole number", 1: "a positive integer"}.get(
        least, f"a whole number of at least {least}"
    )
    raise error(f"{name} must be {kind}, got {value!r}")


def check_number(
    name: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    error: type[DNIError] = DNIError,
) -> None:
    """Raise ``error`` where a value is no finite number, or outside the bounds."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value) and least <= value <= most:  # type: ignore[arg-type,operator]
        return
    bounds = "" if least == -math.inf else f" of at least {least:g}"
    bounds += "" if most == math.inf else f" and at most {most:g}"
    raise error(f"{name} must be a finite number{bounds}, got {value!r}")


def check_flag(name: str, value: object, error: type[DNIError] = DNIError) -> None:
    """Raise ``error`` where a value is neither True nor False."""
    if not isinstance(value, bool):
        raise error(f"{name} must be True or False, got {value!r}")


def check_choice(
    name: str, value: object, choices: Sequence[str | None], error: type[DNIError] = DNIError
) -> None:
    """Raise ``error`` where a value is none of the choices, texts or None."""
    if (value is None or isinstance(value, str)) and value in choices:
        return
    listed = ", ".join(repr(choice) for choice in choices[:-1])
    raise error(f"{name} must be {listed} or {choices[-1]!r}, not {value!r}")


def check_shape(name: str, value: object, error: type[DNIError] = DNIError) -> None:
    """Raise ``error`` where a value is no shape ``(batch, *positions, features)``."""
    shape = [*value] if isinstance(value, (tuple, list)) else []
    whole = all(isinstance(size, int) and not isinstance(size, bool) for size in shape)
    if len(shape) < 2 or not whole or min(shape) < 0 or not shape[-1]:
        raise error(f"{name} must be a shape (batch, *positions, features), got {value!r}")


def check_tensor(name: str, value: object, error: type[DNIError] = DNIError) -> None:
    """Raise ``error`` where a value is no tensor."""
    if not isinstance(value, Tensor):
        raise error(f"{name} must be a tensor, not {type(value).__name__}")


def whole(name: str, value: int) -> int:
    """Return a whole number; :class:`DNIError` where a value is none."""
    check_whole(name, value)
    return value


def shape_of(value: object) -> str:
    """Return what error messages say of a value: the shape of a tensor, the type of others."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
