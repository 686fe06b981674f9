"""Links with latency and jitter: messages that come later than they were sent."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, Tensor

from pytorch_dni.distributed import Transport, Work

_STAMP = 16  # bytes before a message: when it was sent


class Delay:
    """The delays of the messages from one rank to another, the same in every run.

    Args:
        seconds: The least delay.
        jitter: The most that is added, as a share of it.
        key: Distinguishes pairs of ranks.
    """

    def __init__(self, seconds: float, jitter: float, key: str) -> None:
        self._seconds, self._jitter, self._key = seconds, jitter, key
        self._count = 0
        self._last = 0.0

    def wait(self, sent: float) -> None:
        """Wait until the next message has come; messages do not overtake each other.

        Args:
            sent: When it was sent, by the clock of the machine.
        """
        draw = zlib.crc32(f"{self._key} {self._count}".encode()) / 2**32
        self._count += 1
        self._last = max(self._last, sent + self._seconds * (1 + self._jitter * draw))
        time.sleep(max(0.0, self._last - time.monotonic()))


class SlowTransport:
    """A transport whose messages come later; all ranks must be processes of one machine.

    Args:
        inner: Sends the messages.
        seconds: The least delay.
        jitter: The most that is added, as a share of it.
    """

    def __init__(self, inner: Transport, seconds: float, jitter: float = 0.0) -> None:
        self._inner, self._seconds, self._jitter = inner, seconds, jitter
        self._delays: dict[tuple[int, int], Delay] = {}

    def send(self, buffer: Tensor, to: int, tag: int) -> Work:
        """Begin to send, with the present time before the message."""
        stamp = torch.zeros(_STAMP, dtype=torch.uint8)
        stamp.view(torch.float64)[0] = time.monotonic()
        return self._inner.send(torch.cat([stamp, buffer]), to, tag)

    def receive(self, buffer: Tensor, source: int, tag: int) -> Work:
        """Begin to receive."""
        whole = torch.empty(_STAMP + len(buffer), dtype=torch.uint8)
        key = source, tag
        if key not in self._delays:
            self._delays[key] = Delay(self._seconds, self._jitter, f"{source} {tag}")
        return _SlowReceive(
            self._inner.receive(whole, source, tag), whole, buffer, self._delays[key]
        )


class _SlowReceive:
    def __init__(self, work: Work, whole: Tensor, buffer: Tensor, delay: Delay) -> None:
        self._work, self._whole, self._buffer, self._delay = work, whole, buffer, delay

    def wait(self, timeout: float) -> None:
        self._work.wait(timeout)
        self._buffer.copy_(self._whole[_STAMP:])
        self._delay.wait(float(self._whole[:_STAMP].view(torch.float64)[0]))


@contextmanager
def slow_point_to_point(seconds: float) -> Iterator[None]:
    """Delay the messages of ``isend`` and ``irecv`` in this scope.

    The schedules of ``torch.distributed.pipelining`` send by them. All ranks must be processes of
    one machine.

    Args:
        seconds: The delay; 0 changes nothing.
    """
    module = distributed.distributed_c10d
    isend, irecv = module.isend, module.irecv
    delays: dict[object, Delay] = {}

    def slow_send(tensor: Tensor, *args: Any, **options: Any) -> Any:
        stamp = torch.tensor([time.monotonic()], dtype=torch.float64)
        return _Both(isend(stamp, *args, **options), isend(tensor, *args, **options), stamp)

    def slow_receive(tensor: Tensor, *args: Any, **options: Any) -> Any:
        stamp = torch.zeros(1, dtype=torch.float64)
        first = irecv(stamp, *args, **options)
        peer = str((args, sorted(options.items(), key=str)))
        delay = delays.setdefault(peer, Delay(seconds, 0.0, peer))
        return _Both(first, irecv(tensor, *args, **options), stamp, delay)

    if seconds:
        for place in (module, distributed):
            place.isend, place.irecv = slow_send, slow_receive
    try:
        yield
    finally:
        for place in (module, distributed):
            place.isend, place.irecv = isend, irecv


class _Both:
    """A message and its time stamp on the way."""

    def __init__(self, first: Any, second: Any, stamp: Tensor, delay: Delay | None = None) -> None:
        self._works, self._stamp, self._delay = (first, second), stamp, delay

    def wait(self, timeout: Any = None) -> bool:
        for work in self._works:
            work.wait()
        if self._delay is not None:
            self._delay.wait(self._stamp.item())
        return True
