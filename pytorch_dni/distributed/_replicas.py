"""Replicas of a part: ranks that train it together, each on batches of its own."""

from __future__ import annotations

import torch
from torch import distributed
from torch.distributed import ProcessGroup

from ..errors import DNIError
from ._place import Place


def replica_group(place: Place) -> ProcessGroup | None:
    """Return the group of the ranks of a part; None where it has no other. All ranks call it.

    Raises:
        DNIError: There is no process group.
    """
    if place.replicas == 1:
        return None
    if not distributed.is_initialized():
        raise DNIError("replicas need a process group: call init_process_group() first")
    own: ProcessGroup | None = None
    for part in range(place.parts):
        ranks = [part * place.replicas + replica for replica in range(place.replicas)]
        group = distributed.new_group(ranks)
        if part == place.part:
            own = group
    return own


def agreed(group: ProcessGroup, value: bool) -> bool:
    """Return whether something is true of all ranks of a group.

    A batch that one replica refuses must be refused by all: their gradients are averaged.
    """
    found = torch.tensor([int(value)])
    distributed.all_reduce(found, distributed.ReduceOp.MIN, group=group)
    return bool(found.item())
