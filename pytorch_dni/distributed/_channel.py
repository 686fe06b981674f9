"""Channels: messages of one kind from one rank to another, sent and received ahead."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import DNIError, LostRankError
from ._message import Kind, Layout, Message
from ._transport import Transport, Work

Lost = Callable[[int, str], LostRankError]


class Waiting:
    """Measures how long a rank waits for others."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count seconds of waiting."""
        self.seconds += seconds

    def restart(self) -> None:
        """Measure from now on."""
        self._start, self.seconds = time.perf_counter(), 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    @property
    def share(self) -> float:
        """Waiting over all time."""
        return self.seconds / max(self.elapsed, 1e-9)


class End:
    """One end of a channel.

    Args:
        transport: Sends the bytes.
        peer: The rank at the other end.
        tag: Distinguishes channels between the same ranks.
        layout: How messages become bytes.
        depth: How many messages are received ahead, and how many sends may be unfinished.
        waiting: Counts the time of waiting.
        lost: Returns the error for a peer that is lost.
        timeout: The most seconds to wait for one message.
    """

    def __init__(
        self,
        transport: Transport,
        peer: int,
        tag: int,
        layout: Layout,
        depth: int,
        waiting: Waiting,
        lost: Lost,
        timeout: float,
    ) -> None:
        self._transport, self._peer, self._tag = transport, peer, tag
        self._layout, self._depth = layout, depth
        self._waiting, self._lost, self._timeout = waiting, lost, timeout
        self._works: deque[tuple[Work, Tensor]] = deque()

    def _wait_for_oldest(self) -> Tensor:
        work, buffer = self._works.popleft()
        start = time.perf_counter()
        try:
            work.wait(self._timeout)
        except RuntimeError as error:
            raise self._loss(error) from error
        self._waiting.add(time.perf_counter() - start)
        return buffer

    def _loss(self, error: BaseException) -> LostRankError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return self._lost(self._peer, reason)


class Receiver(End):
    """Receives messages in the order of their batches; ``depth`` receives are always begun."""

    _polled: _Polled | None = None

    def begin(self) -> None:
        """Begin the first receives."""
        for _ in range(self._depth):
            self._begin_one()

    def _begin_one(self) -> None:
        buffer = torch.empty(self._layout.nbytes, dtype=torch.uint8)
        self._works.append((self._transport.receive(buffer, self._peer, self._tag), buffer))

    def next(self, number: int | None = None) -> Message:
        """Wait for the next message.

        Args:
            number: Number of the batch that it must belong to; None for any.

        Raises:
            LostRankError: The other rank is lost.
            DNIError: It belongs to another batch.
        """
        message = self._took(self._wait_for_oldest())
        if number is not None and message.number != number:
            raise DNIError(
                f"a message of batch {message.number} ({message.kind.name}) came from rank "
                f"{self._peer} where one of batch {number} belongs: the ranks do not run the same "
                "calls of train() and evaluate()"
            )
        return message

    def poll(self, seconds: float) -> Message | None:
        """Wait for the next message for some seconds; return None where it has not come.

        Raises:
            LostRankError: The other rank is lost.
        """
        if self._polled is None:
            # gloo tells only by waiting whether a message has come. The thread ends with the wait.
            self._polled = _Polled(*self._works.popleft(), self._timeout)
        start = time.perf_counter()
        ended = self._polled.ended.wait(seconds)
        self._waiting.add(time.perf_counter() - start)
        if not ended:
            return None
        polled, self._polled = self._polled, None
        if polled.error is not None:
            raise self._loss(polled.error) from polled.error
        return self._took(polled.buffer)

    def _took(self, buffer: Tensor) -> Message:
        message = self._layout.unpack(buffer)
        if message.kind is not Kind.CLOSE:
            self._begin_one()
        return message

    def close(self) -> None:
        """Wait for the messages that close the channel.

        Raises:
            DNIError: Others came.
        """
        while self._works:
            kind = self._layout.unpack(self._wait_for_oldest()).kind
            if kind is not Kind.CLOSE:
                raise DNIError(f"{kind.name} came from rank {self._peer} after the last call")


class _Polled:
    """A receive that a thread of its own waits for."""

    def __init__(self, work: Work, buffer: Tensor, timeout: float) -> None:
        self._work, self._timeout = work, timeout
        self.buffer, self.ended = buffer, threading.Event()
        self.error: RuntimeError | None = None
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        try:
            self._work.wait(self._timeout)
        except RuntimeError as error:
            self.error = error
        self.ended.set()


class Sender(End):
    """Sends messages; waits where more than ``depth`` of them are not sent yet."""

    def send(self, message: Message) -> None:
        """Begin to send a message.

        Raises:
            LostRankError: The other rank is lost.
            DNIError: A tensor does not fit the example.
        """
        buffer = self._layout.pack(message)
        self._works.append((self._transport.send(buffer, self._peer, self._tag), buffer))
        while len(self._works) > self._depth:
            self._wait_for_oldest()

    def send_close(self) -> None:
        """Begin to send the messages that end the receives begun at the other end."""
        for _ in range(self._depth):
            buffer = self._layout.pack(Message(Kind.CLOSE, -1))
            self._works.append((self._transport.send(buffer, self._peer, self._tag), buffer))

    def close(self) -> None:
        """Wait for all sends."""
        while self._works:
            self._wait_for_oldest()
