"""Where batches come from: the loader in the first part, the part before in the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ..errors import DNIError
from ._links import Links
from ._message import Kind, Message
from ._start import first_tensors


class Loader:
    """Numbers the batches of a loader, in the first part.

    Args:
        batches: ``(input, target)`` or ``(input, target, context)`` each.
        kind: What the messages are.
        first: Number of the first batch.
        limit: The most batches; None for all.
        extras: How many tensors the example had beside the input.

    Attributes:
        ended: Whether there are no more batches.

    Raises:
        DNIError: There is no loader.
    """

    def __init__(
        self,
        batches: Iterable[object] | None,
        kind: Kind,
        first: int,
        limit: int | None,
        extras: int,
    ) -> None:
        if batches is None:
            raise DNIError("the first part takes the batches: give it a loader")
        self._batches = islice(batches, limit)
        self._kind, self._number, self._limit = kind, first, limit
        self._taken = 0
        self._extras = extras
        self.ended = True

    def __iter__(self) -> Iterator[Message]:
        """Return messages of the batches."""
        for batch in self._batches:
            inputs, extras = first_tensors(batch)
            if len(extras) != self._extras:
                raise DNIError(
                    f"a batch holds {len(extras)} tensors beside the input, but the example held "
                    f"{self._extras}: give all batches the form of the example"
                )
            yield Message(self._kind, self._number, [*inputs, *extras])
            self._number += 1
            self._taken += 1
        # Whether more would come is not known without taking one.
        self.ended = self._limit is None or self._taken < self._limit


def received(links: Links) -> Iterator[Message]:
    """Return messages of batches from the part before, until there are no more."""
    while True:
        message = links.take()
        if message.kind in (Kind.END, Kind.CLOSE):
            return
        yield message
