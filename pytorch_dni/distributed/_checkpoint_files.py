"""Files of checkpoints, by ``torch.distributed.checkpoint``, whose import takes seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ..errors import CheckpointError


def read_entries(path: Path, choose: Callable[[Iterable[str]], list[str]]) -> dict[str, Tensor]:
    """Read entries of a checkpoint.

    Args:
        path: Its folder.
        choose: Returns which of the names that there are is read.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        there = FileSystemReader(str(path)).read_metadata().state_dict_metadata
    except Exception as error:  # a damaged pickle raises almost any exception
        raise CheckpointError(f"{path} is no checkpoint of a pipeline: {error}") from error
    found = {}
    for name in choose(there):
        entry = there[name]
        if isinstance(entry, TensorStorageMetadata):
            found[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
    with _failing(f"{path} cannot be read"):
        load(found, storage_reader=FileSystemReader(str(path)))
    return found


def write_entries(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write the entries of this rank to a folder, together with all other ranks.

    Raises:
        CheckpointError: It cannot be written, or a rank was lost meanwhile.
    """
    with _failing(f"{path} cannot be written"):
        save(dict(state), storage_writer=FileSystemWriter(str(path)))


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Raise :class:`CheckpointError` for failures, and leave out the library's own warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointException as error:  # no subclass of Exception
        first = next(iter(error.failures.values()))[0]
        raise CheckpointError(f"{what}: {type(first).__name__}: {first}") from error
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{what}: {type(error).__name__}: {error}") from error
