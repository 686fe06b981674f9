"""What a stage saves and loads: the whole network, and checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn, Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .._checks import check_whole
from ..errors import CheckpointError
from ..interfaces import ForwardInterface, UnidirectionalInterface
from ._checkpoint import check_equal, CheckpointFolder, find, gathered, read
from ._cut import Cut
from ._flat_state import (
    BATCHES,
    entries,
    load_network,
    load_optimizer,
    load_scheduler,
    network_state,
    optimizer_state,
    scheduler_state,
    wanted,
)
from ._notices import Notices
from ._part import bare
from ._place import Place


class StoredStage:
    """Saves and loads a stage together with all others.

    Attributes:
        part: The part.
        optimizer: Its optimizer.
        scheduler: Its scheduler.
        place: Which part this is.
        cut: The interfaces at its end; None where there are none.
        batches: How many batches have been trained on.
    """

    part: nn.Module
    optimizer: Optimizer | None
    scheduler: LRScheduler | None
    place: Place
    cut: Cut | None
    batches: int
    _notices: Notices
    _input: ForwardInterface | None
    _calls: int

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state dict of the whole network, on every rank; every rank has to call it.

        Raises:
            DNIError: Parts have entries of the same name.
        """
        own = bare(self.part).state_dict() if self.place.replica == 0 else {}
        return gathered(own)

    def save(self, folder: str | Path, keep: int = 2) -> Path:
        """Write a checkpoint of the whole pipeline; every rank has to call it.

        It becomes ``batch-N`` in the folder, complete or not at all.

        Args:
            folder: The folder of the run, which all ranks reach.
            keep: How many checkpoints stay in it.

        Returns:
            Its path.

        Raises:
            LostRankError: A rank is lost.
            CheckpointError: It cannot be written.
        """
        check_whole("keep", keep, 1)
        self._calls += 1
        rank = self._notices.rank
        files = CheckpointFolder(folder, rank == 0, partial(self._barrier, self._calls))
        try:
            return files.save(self._own_entries(), self.batches, keep)
        except CheckpointError as error:
            # Where a rank is lost, writing fails on all others.
            silent = self._notices.silent(f"not written/{self._calls}")
            if silent:
                raise self._notices.lost(silent[0], str(error)) from error
            raise

    def load(self, folder: str | Path) -> int:
        """Continue from the newest checkpoint in a folder; every rank has to call it.

        It may be one of another number of parts. Interfaces are loaded by their names; those that
        it does not have begin anew.

        Returns:
            The number of batches that it has been trained on.

        Raises:
            CheckpointError: There is none, or it is of another network.
        """
        self._calls += 1
        module, path = bare(self.part), find(folder)
        self._notices.publish(f"loaded/{self._calls}", path.name)
        check_equal(self._notices.read_all(f"loaded/{self._calls}"), folder)
        names = {interface.name or "": interface for interface in self.interfaces()}
        random = f"random.{self.place.part}.{self.place.replica}"
        saved = read(path, lambda there: wanted(there, module, names, random))
        for name, interface in names.items():
            own = entries(saved, f"interfaces.{name}.")
            if own:
                interface.load_state_dict(own)
        load_network(module, saved)
        load_optimizer(module, self.optimizer, saved)
        load_scheduler(self.scheduler, saved)
        if random in saved:
            torch.set_rng_state(saved[random])
        self.batches = int(saved[BATCHES])
        return self.batches

    def interfaces(self) -> list[UnidirectionalInterface]:
        """Return the interfaces of this part: those at its end, and the one at its input."""
        at_end = [] if self.cut is None else [*self.cut.interfaces.values()]
        return [*at_end, *([] if self._input is None else [self._input])]

    def _own_entries(self) -> dict[str, Tensor]:
        """Return the entries of a checkpoint that this rank writes."""
        place, module = self.place, bare(self.part)
        found = {f"random.{place.part}.{place.replica}": torch.get_rng_state()}
        if place.replica == 0:
            found.update(network_state(module))
            found.update(optimizer_state(module, self.optimizer))
            for interface in self.interfaces():
                own = interface.state_dict()
                found.update({f"interfaces.{interface.name}.{k}": v for k, v in own.items()})
            if place.is_first:
                found.update(scheduler_state(self.scheduler))
                found[BATCHES] = torch.tensor(self.batches)
        return found

    def _barrier(self, call: int, name: str) -> None:
        self._notices.publish(f"{name}/{call}", True)
        self._notices.read_all(f"{name}/{call}")
