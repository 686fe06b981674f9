"""Where a rank stands in the pipeline, and how it reaches the others."""

from __future__ import annotations

from typing import NamedTuple

from torch import distributed
from torch.distributed import Store  # type: ignore[attr-defined]

from .._checks import check_whole
from .._torch import default_store
from ..errors import DNIError
from ._transport import ProcessGroupTransport, Transport


class Connection(NamedTuple):
    """How a rank reaches the other ones.

    Attributes:
        rank: Number of this rank.
        ranks: Number of all ranks.
        transport: Sends messages between them.
        store: Holds small texts that all ranks can read.
    """

    rank: int
    ranks: int
    transport: Transport
    store: Store

    @classmethod
    def of_process_group(cls) -> Connection:
        """Return the connection by the default process group.

        Raises:
            DNIError: There is none, or it cannot send tensors on the CPU.
        """
        transport = ProcessGroupTransport()
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
        return cls(rank, ranks, transport, default_store())


class Place(NamedTuple):
    """The part and the replica of a rank; ranks with the same part follow one another.

    Attributes:
        part: Number of its part.
        parts: Number of parts.
        replica: Number of its replica of the part.
        replicas: How often each part is there.
    """

    part: int
    parts: int
    replica: int
    replicas: int

    @classmethod
    def of(cls, rank: int, ranks: int, replicas: int) -> Place:
        """Return the place of a rank.

        Raises:
            DNIError: The ranks cannot be divided so.
        """
        check_whole("replicas", replicas, 1)
        if ranks % replicas:
            raise DNIError(
                f"{ranks} ranks cannot be divided into parts of {replicas} replicas each: start "
                "a multiple of replicas"
            )
        part, replica = divmod(rank, replicas)
        return cls(part, ranks // replicas, replica, replicas)

    def rank_of(self, part: int) -> int:
        """Return the rank of this replica of a part."""
        return part * self.replicas + self.replica

    @property
    def is_first(self) -> bool:
        """Whether it is the first part."""
        return self.part == 0

    @property
    def is_last(self) -> bool:
        """Whether it is the last part."""
        return self.part == self.parts - 1

    @property
    def previous(self) -> int:
        """The rank that sends activations to this one."""
        return self.rank_of(self.part - 1)

    @property
    def next(self) -> int:
        """The rank that this one sends activations to."""
        return self.rank_of(self.part + 1)
