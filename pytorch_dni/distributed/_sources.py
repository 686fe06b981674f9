"""Where batches come from: the loader in the first part, the part before in the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from ..errors import DNIError
from ._links import Links
from ._message import Kind, Message
from ._start import first_tensors

_FOREVER = 1e6  # seconds; the time in which another rank must answer ends before


class Loader:
    """Numbers the batches of a loader, in the first part.

    Args:
        batches: ``(input, target)`` or ``(input, target, context)`` each.
        kind: What the messages are.
        first: Number of the first batch.
        limit: The most batches; None for all.
        extras: How many tensors the example had beside the input.
        carries_input: Whether the input travels on to all parts.

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
        carries_input: bool,
    ) -> None:
        if batches is None:
            raise DNIError("the first part takes the batches: give it a loader")
        self._batches = islice(batches, limit)
        self._kind, self._number, self._limit = kind, first, limit
        self._taken = 0
        self._extras, self._carries_input = extras, carries_input
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
            carried = inputs[:1] if self._carries_input else []
            yield Message(self._kind, self._number, [*inputs, *extras, *carried])
            self._number += 1
            self._taken += 1
        # Whether more would come is not known without taking one.
        self.ended = self._limit is None or self._taken < self._limit


def received(
    links: Links, patience: float | None = None, idle: Callable[[], bool] = bool
) -> Iterator[Message]:
    """Return messages of batches from the part before, until there are no more.

    Args:
        links: The channels.
        patience: Seconds to wait before ``idle`` is called; None never calls it.
        idle: Does something else; returns whether there may be more to do.
    """
    while True:
        message = links.take() if patience is None else links.poll(patience)
        while message is None:
            assert patience is not None
            more = idle()
            message = links.poll(patience if more else _FOREVER)
        if message.kind in (Kind.END, Kind.CLOSE):
            return
        yield message
