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
def reporting_write_errors(path: Path, option: str = "--out") -> Iterator[None]:
    """Turn errors of the operating system into an error that names an option.

    Args:
        path: The folder or file that the option names.
        option: Name of the option.

    Raises:
        TaskError: The folder or file cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise TaskError(f"cannot write to {option} {path}: {error.strerror}") from error


def write_atomically(path: Path, content: bytes, private: bool = False) -> None:
    """Replace a file completely, or leave it as it was if writing fails.

    Args:
        path: The file.
        content: Its new content.
        private: Whether only the user may read it, whatever the settings of the system.
    """

    def create(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600 if private else 0o666)

    # The temporary file is in the same folder, hence on the same disk, where renaming is atomic.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed
        with open(temporary, "xb", opener=create) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def save_checkpoint(path: Path, state: dict[str, Any], private: bool = False) -> None:
    """Replace a checkpoint completely, or leave it as it was if writing fails.

    Args:
        path: File of the checkpoint.
        state: Tensors and plain data.
        private: Whether only the user may read it.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue(), private)


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
    return load_tensors(path, device, "checkpoint")


def load_tensors(path: Path, device: torch.device | str, kind: str) -> Any:
    """Load tensors and plain data from a file to a device.

    Args:
        path: The file.
        device: Where its tensors are put.
        kind: What the file is, for the error message.

    Raises:
        TaskError: The file cannot be read.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises almost any exception for damaged files
        lines = str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise TaskError(f"unreadable {kind} {path}: {reason}") from error
