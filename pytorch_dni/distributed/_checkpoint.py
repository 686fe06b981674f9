"""Checkpoints of a whole pipeline, by ``torch.distributed.checkpoint``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import distributed, nn, Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..errors import CheckpointError, DNIError
from ._flat_state import (
    BATCHES,
    load_network,
    load_optimizer,
    load_scheduler,
    wanted,
)

_PARTIAL, _REPLACED = ".partial", ".replaced"


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest complete checkpoint in a folder; None without one."""
    found = [path for path in Path(folder).glob("batch-*") if (path / ".metadata").is_file()]
    return max(found, default=None, key=lambda path: path.name)


def load_checkpoint(
    folder: str | Path,
    network: nn.Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
) -> int:
    """Load the newest checkpoint of a pipeline into a whole network, in one process.

    Load only checkpoints that you trust: ``torch.distributed.checkpoint`` reads their list of
    entries by pickle.

    Args:
        folder: The folder that was given to :meth:`Stage.save`.
        network: The network that was split.
        optimizer: Optimizer of all its parameters.
        scheduler: Scheduler of that optimizer.

    Returns:
        The number of batches that it has been trained on.

    Raises:
        CheckpointError: There is none, or it is of another network. Nothing has changed.
    """
    path = find(folder)
    saved = read(path, lambda names: wanted(names, network))
    load_network(network, saved)
    load_optimizer(network, optimizer, saved)
    load_scheduler(scheduler, saved)
    return int(saved[BATCHES])


def find(folder: str | Path) -> Path:
    """Return the newest checkpoint in a folder.

    Raises:
        CheckpointError: There is none.
    """
    path = latest_checkpoint(folder)
    if path is None:
        raise CheckpointError(f"no complete checkpoint of a pipeline in {folder}")
    return path


def read(path: Path, choose: Callable[[Iterable[str]], list[str]]) -> dict[str, Tensor]:
    """Read entries of a checkpoint; where there is a process group, all ranks call it.

    Args:
        path: Its folder.
        choose: Returns which of the names that there are is read.

    Raises:
        CheckpointError: It cannot be read.
    """
    # The import takes seconds, and few processes need it.
    from ._checkpoint_files import read_entries

    return read_entries(path, choose)


def check_equal(names: Iterable[str], folder: str | Path) -> None:
    """Raise :class:`CheckpointError` where ranks find different checkpoints in a folder."""
    found = {*names}
    if len(found) > 1:
        raise CheckpointError(
            f"ranks find different checkpoints in {folder}, {', '.join(sorted(found))}: give all "
            "of them one folder that they share"
        )


def gathered(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of all ranks together, on the CPU.

    Raises:
        DNIError: There is no process group, or two ranks have entries of the same name.
    """
    if not distributed.is_initialized():
        raise DNIError("gathering a state dict needs a process group: init_process_group() first")
    ranks: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(ranks, {name: value.cpu() for name, value in own.items()})
    whole: dict[str, Tensor] = {}
    for number, entries in enumerate(ranks):
        twice = [name for name in entries if name in whole]
        if twice:
            raise DNIError(
                f"rank {number} has an entry {twice[0]!r}, and so has a rank before it: name the "
                "modules of the parts as in the whole network, as split() does"
            )
        whole.update(entries)
    return whole


class CheckpointFolder:
    """The folder of the checkpoints of a run; each is complete, or not there.

    Args:
        folder: The folder.
        is_first: Whether this rank makes and renames folders.
        barrier: Waits for all ranks.
    """

    def __init__(self, folder: str | Path, is_first: bool, barrier: Callable[[str], None]) -> None:
        self._folder = Path(folder)
        self._is_first, self._barrier = is_first, barrier

    def save(self, state: Mapping[str, Tensor], batches: int, keep: int) -> Path:
        """Write a checkpoint, and remove old ones; every rank calls it with its own entries.

        Args:
            state: Entries of this rank.
            batches: Number of batches, which gives the checkpoint its name.
            keep: How many checkpoints stay.

        Raises:
            CheckpointError: It cannot be written, or a rank was lost meanwhile.
            LostRankError: A rank is lost.
        """
        # As above.
        from ._checkpoint_files import write_entries

        path, partial = self._folder / f"batch-{batches:09d}", self._folder / _PARTIAL
        if self._is_first:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove(partial)
            self._remove(self._folder / _REPLACED)
            partial.mkdir(mode=0o700)
        self._barrier("folder")
        write_entries(partial, state)
        self._barrier("written")
        if self._is_first:
            if path.exists():
                path.rename(self._folder / _REPLACED)
            partial.rename(path)
            self._remove(self._folder / _REPLACED)
            for old in sorted(self._folder.glob("batch-*"))[:-keep]:
                self._remove(old)
        self._barrier("renamed")
        return path

    def _remove(self, path: Path) -> None:
        if path.exists():
            # The list of entries goes first: without it, the rest is no checkpoint.
            (path / ".metadata").unlink(missing_ok=True)
            shutil.rmtree(path)
