"""Reading and writing of files that later runs depend on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from .errors import TaskError


def check_unused(folder: Path, names: Iterable[str], advice: str) -> None:
    """Check that a folder holds none of the files that a run writes.

    Raises:
        TaskError: It holds one of them; the message ends in ``advice``.
    """
    used = [name for name in names if (folder / name).exists()]
    if used:
        raise TaskError(f"{folder} holds a run already ({', '.join(used)}): {advice}")


@contextmanager
def reporting_write_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the operating system into an error that names ``--out``.

    Raises:
        TaskError: The folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise TaskError(f"cannot write to --out {folder}: {error.strerror}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file completely, or leave it as it was if writing fails."""
    # The temporary file is in the same folder, hence on the same disk, where renaming is atomic.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint completely, or leave it as it was if writing fails."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device | str, purpose: str) -> Any:
    """Load a checkpoint to a device.

    Args:
        path: File of the checkpoint.
        device: Where its tensors are put.
        purpose: What the checkpoint is needed for, as a verb for the error message.

    Raises:
        TaskError: The file is missing, or it cannot be read.
    """
    if not path.is_file():
        raise TaskError(f"no checkpoint in {path.parent}: there is nothing to {purpose}")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises almost any exception for damaged files
        lines = str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise TaskError(f"unreadable checkpoint {path}: {reason}") from error
