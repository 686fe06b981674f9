"""Small texts that ranks leave for each other in the store: settings, results, who is lost."""

from __future__ import annotations

import json
import time
from typing import Any

from torch import distributed
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from ..errors import LostRankError

_GRACE = 1.0  # seconds in which ranks that found a loss at the same time write it down
_PAUSE = 0.002  # seconds between two looks for a text
_LOOK_FOR_LOSSES = 0.5  # seconds between two looks for losses


class Notices:
    """Texts in the store of the process group, each under a name.

    Args:
        store: The store.
        rank: Number of this rank.
        ranks: Number of all ranks.
        prefix: Distinguishes stages that follow one another in the same store.
        timeout: The most seconds to wait for a text.

    Attributes:
        rank: Number of this rank.
    """

    def __init__(self, store: Store, rank: int, ranks: int, prefix: str, timeout: float) -> None:
        self._store = PrefixStore(prefix, store)
        self.rank, self._ranks = rank, ranks
        self._timeout = timeout

    def publish(self, name: str, value: Any) -> None:
        """Leave plain data under a name, with that of this rank."""
        self._store.set(f"{name}/{self.rank}", json.dumps(value))

    def read(self, name: str, rank: int) -> Any:
        """Wait for what a rank leaves under a name.

        Raises:
            LostRankError: It did not come in time, or some rank is lost.
        """
        key = f"{name}/{rank}"
        start = looked = time.monotonic()
        try:
            while not self._store.check([key]):
                now = time.monotonic()
                if now - looked > _LOOK_FOR_LOSSES:
                    looked = now
                    self._raise_known_loss()
                if now - start > self._timeout:
                    raise self.lost(rank, f"nothing came from it in {self._timeout:g} seconds")
                time.sleep(_PAUSE)
            return json.loads(self._store.get(key))
        except distributed.DistError as error:
            raise LostRankError(f"rank {self.rank}: the store is gone: {error}") from error

    def read_all(self, name: str) -> list[Any]:
        """Wait for what all ranks leave under a name, and return it in their order.

        Raises:
            LostRankError: As in :meth:`read`.
        """
        return [self.read(name, rank) for rank in range(self._ranks)]

    def newest(self, name: str) -> list[Any]:
        """Return what each rank has left under a name so far; None where there is nothing."""
        keys = [f"{name}/{rank}" for rank in range(self._ranks)]
        return [json.loads(self._store.get(k)) if self._store.check([k]) else None for k in keys]

    def silent(self, name: str) -> list[int]:
        """Leave a text under a name, and return the ranks that do not do the same soon."""
        try:
            self.publish(name, True)
            time.sleep(_GRACE)
            return [rank for rank, found in enumerate(self.newest(name)) if found is None]
        except RuntimeError:  # The store is gone with the rank that holds it, which nobody knows.
            return []

    def lost(self, rank: int, reason: str) -> LostRankError:
        """Return the error that names the rank which is lost.

        A rank that loses its neighbour ends too, and is lost to its other neighbour. So each writes
        down for whom it waited, and the chain of these notes leads to the first one.

        Args:
            rank: The rank that this one waited for.
            reason: Why it is taken for lost.
        """
        found = rank
        try:
            self.publish("lost", {"rank": rank, "reason": reason})
            end = time.monotonic() + _GRACE
            while time.monotonic() < end:
                notes = self.newest("lost")
                found = self._follow(rank, notes)
                if notes[found] is None:
                    time.sleep(10 * _PAUSE)
        except Exception:  # The store may be gone with the rank that holds it.
            reason = f"{reason}; the store is gone too"
        return LostRankError(
            f"rank {self.rank}: rank {found} is lost ({reason}): see its own output for the "
            "reason, and start again from the last checkpoint"
        )

    def _raise_known_loss(self) -> None:
        notes = self.newest("lost")
        for rank, note in enumerate(notes):
            if note is not None:
                found = self._follow(rank, notes)
                raise LostRankError(
                    f"rank {self.rank}: rank {found} is lost ({note['reason']}): see its own "
                    "output for the reason, and start again from the last checkpoint"
                )

    def _follow(self, rank: int, notes: list[Any]) -> int:
        """Return the rank at the end of the chain of notes that begins at a rank."""
        seen = {self.rank}
        while notes[rank] is not None and rank not in seen:
            seen.add(rank)
            rank = notes[rank]["rank"]
        return rank
