"""Counting batches, and showing on the first rank how fast they pass and who waits."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from ..errors import DNIError
from ._channel import Waiting
from ._message import Message
from ._notices import Notices
from ._place import Place

_EVERY = 1.0  # seconds between two looks at the clocks of the other ranks


class Meter:
    """Counts batches and samples in a ``with`` block.

    Args:
        notices: Texts for the other ranks.
        place: The place of this rank.
        waiting: Measures the time of waiting; restarted at the beginning.
        shows: Whether the first rank shows a bar of tqdm.
        call: Number of the call of ``train``.

    Attributes:
        batches: Number of batches.
        samples: Number of samples.

    Raises:
        DNIError: tqdm is not installed.
    """

    def __init__(
        self, notices: Notices, place: Place, waiting: Waiting, shows: bool, call: int
    ) -> None:
        self._notices, self._waiting = notices, waiting
        self._name, self._shows = f"waiting/{call}", shows
        self._bar: Any = None
        if shows and place.is_first and place.replica == 0:
            self._bar = _new_bar()
        self.batches = self.samples = 0
        self._told = time.monotonic()
        waiting.restart()

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def measured(self) -> dict[str, Any]:
        """Return what was measured, as plain data."""
        return {
            "batches": self.batches,
            "samples": self.samples,
            "seconds": self._waiting.elapsed,
            "waiting": self._waiting.share,
        }

    def count(self, message: Message) -> None:
        """Count a batch."""
        rows = [tensor.shape[0] for tensor in message.tensors[-1:] if tensor is not None]
        self.batches += 1
        self.samples += sum(rows)
        if self._bar is not None:
            self._bar.update(sum(rows))
        now = time.monotonic()
        if self._shows and now - self._told >= _EVERY:
            self._told = now
            self._notices.publish(self._name, self._waiting.share)
            if self._bar is not None:
                shares = self._notices.newest(self._name)
                text = ", ".join("-" if s is None else f"{100 * s:.0f} %" for s in shares)
                self._bar.set_postfix_str(f"waiting: {text}")


def _new_bar() -> Any:
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError as error:
        raise DNIError("progress=True needs tqdm: pip install tqdm, or leave it out") from error
    return tqdm(unit=" samples", mininterval=0.5, leave=False)
