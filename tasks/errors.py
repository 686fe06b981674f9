"""The error that a program reports to its user, and how a lack of memory is told."""

from __future__ import annotations

import re

import torch

# What PyTorch says where memory is missing, or where a size does not fit into 64 bits.
_MISSING = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "unable to allocate",
    "invalid buffer size",
    "storage size calculation overflowed",
    "integer multiplication overflow",
    "overflow when unpacking",
    "too large to convert",
)
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


class TaskError(Exception):
    """An error that the user can correct; the program reports it in one line and exits with 2."""


def memory_reason(error: BaseException) -> str | None:
    """Return what to tell the user about a lack of memory; None if the error is another one."""
    text = str(error)
    # Errors of the library hold the text of what they were raised from.
    told = any(words in text.lower() for words in _MISSING)
    if not told and not isinstance(error, MemoryError | torch.OutOfMemoryError):
        return None
    found = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGT]iB)", text)
    if found is None:
        return "out of memory"
    return f"out of memory: {found[2] or _readable(int(found[1]))} were needed at once"


def _readable(size: float) -> str:
    """Return a number of bytes with a unit."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"
