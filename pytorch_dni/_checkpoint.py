"""Checks of checkpoints, which may be corrupt or of another wrapper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError, DNIError, SynthesizerDefectError

#: Raised by one when what is saved changes; a checkpoint of another format is refused.
FORMAT = 2
_MALFORMED = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


def check_format(found: Any) -> None:
    """Raise :class:`CheckpointError` where a state was not saved in this format."""
    if found != FORMAT:
        raise CheckpointError(
            f"the checkpoint is of format {found!r}, but this version of pytorch_dni reads format "
            f"{FORMAT}: load it with the version that saved it, or load the network alone by "
            "net.load_state_dict(state, strict=False) without the entries of the synthesizers"
        )


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Convert errors about saved data into :class:`CheckpointError`.

    Only code that reads saved values belongs into this scope: what it raises for malformed data
    would be a defect of the library elsewhere.

    Args:
        what: Names the data in the error message.
    """
    try:
        yield
    except CheckpointError:
        raise
    except _MALFORMED as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"the checkpoint does not fit this wrapper: {what} cannot be loaded: {reason}. Give "
            "DNI the network and the arguments (layers, dni_network, sizes, grad_optim) that it "
            "was saved with"
        ) from error


def text(value: Any) -> str:
    """Return a saved text; ``TypeError`` where it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def number(value: Any) -> int:
    """Return a saved count; ``TypeError`` or ``ValueError`` where it is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    if value < 0:
        raise ValueError(f"{value!r} is negative")
    return value


def real(value: Any) -> float:
    """Return a saved finite number; ``TypeError`` or ``ValueError`` where it is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return float(value)


def mean_square(value: Any) -> float:
    """Return a saved mean of squares; ``TypeError`` or ``ValueError`` where it is none."""
    if real(value) < 0:
        raise ValueError(f"{value!r} is negative")
    return float(value)


def flag(value: Any) -> bool:
    """Return a saved truth value; ``TypeError`` where it is none."""
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def tensor(value: Any, shape: Sequence[int | None], like: torch.dtype | None = None) -> Tensor:
    """Return a saved tensor; ``TypeError`` or ``ValueError`` where it is of another kind.

    Args:
        value: The value.
        shape: Its shape; None stands for any size.
        like: A type: floating-point or not, as the saved one must be; None for any.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{value!r} is no tensor")
    sizes = zip(value.shape, shape, strict=False)
    if value.dim() != len(shape) or any(s not in (None, size) for size, s in sizes):
        raise ValueError(f"a tensor has shape {[*value.shape]} where {[*shape]} belongs")
    if like is not None and (like.is_floating_point, like == torch.bool) != (
        value.is_floating_point(),
        value.dtype == torch.bool,
    ):
        raise TypeError(f"a tensor holds {value.dtype} where {like} belongs")
    return value


def listed(value: Any) -> list[Any]:
    """Return a saved list; ``TypeError`` where it is none."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a saved mapping from texts; ``TypeError`` where it is none."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{value!r} is no mapping from names")
    return value


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Name the interface in an error about its saved state.

    Args:
        name: Name of the interface.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(
            f"the checkpoint does not fit this wrapper: interface {name!r} cannot be loaded: "
            f"{error}"
        ) from error


@contextmanager
def building(name: str) -> Iterator[None]:
    """Convert the wrapper's refusal to build an interface into :class:`CheckpointError`.

    Other errors pass: they are defects of a user's synthesizer or of the library.

    Args:
        name: Name of the interface.
    """
    try:
        yield
    except SynthesizerDefectError:
        raise
    except DNIError as error:
        raise CheckpointError(
            "the checkpoint does not fit this wrapper: its arguments build no synthesizer for the "
            f"saved interface {name!r}: {error}"
        ) from error
