"""Checks of checkpoints, which may be corrupt or of another wrapper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import CheckpointError, DNIError, SynthesizerDefectError

#: Raised by one when what is saved changes; a checkpoint of another format is refused.
FORMAT = 1
_MALFORMED = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def check_format(state: Any) -> None:
    """Raise :class:`CheckpointError` where a state was not saved by a wrapper of this format."""
    found = state.get("format") if isinstance(state, Mapping) else None
    if found != FORMAT:
        raise CheckpointError(
            f"the checkpoint is of format {found!r}, but this version of pytorch_dni reads format "
            f"{FORMAT}: load it with the version that saved it"
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


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a saved mapping from texts; ``TypeError`` where it is none."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{value!r} is no mapping from names")
    return value


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
