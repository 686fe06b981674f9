"""How bytes get from rank to rank."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from torch import distributed, Tensor

from ..errors import DNIError


class Work(Protocol):
    """A send or a receive that has begun."""

    def wait(self, timeout: float) -> None:
        """Wait until it has ended.

        Args:
            timeout: The most seconds to wait.

        Raises:
            RuntimeError: The other rank is gone, or the time has passed.
        """


class Transport(Protocol):
    """Sends bytes from rank to rank, asynchronously.

    Messages with the same ranks and the same tag arrive in the order in which they were sent.
    """

    def send(self, buffer: Tensor, to: int, tag: int) -> Work:
        """Begin to send a buffer of bytes, which must not change until the work has ended."""

    def receive(self, buffer: Tensor, source: int, tag: int) -> Work:
        """Begin to receive into a buffer, which is at least as long as the message."""


class ProcessGroupTransport:
    """Sends by the point-to-point operations of the default process group, on the CPU.

    Raises:
        DNIError: There is no process group, or it cannot send tensors on the CPU.
    """

    def __init__(self) -> None:
        if not distributed.is_available() or not distributed.is_initialized():
            raise DNIError(
                "a stage needs a process group: call torch.distributed.init_process_group('gloo') "
                "first, in a program that torchrun starts"
            )
        backend = distributed.get_backend_config()
        if "cpu:" not in backend and "gloo" not in backend:
            raise DNIError(
                f"the process group ({backend}) cannot send tensors on the CPU, by which stages "
                "exchange messages: take 'gloo', or 'cpu:gloo,cuda:nccl'"
            )

    def send(self, buffer: Tensor, to: int, tag: int) -> Work:
        """Begin to send."""
        return _GroupWork(distributed.isend(buffer, to, tag=tag))

    def receive(self, buffer: Tensor, source: int, tag: int) -> Work:
        """Begin to receive."""
        return _GroupWork(distributed.irecv(buffer, source, tag=tag))


class _GroupWork:
    def __init__(self, work: distributed.Work | None) -> None:
        assert work is not None  # None is for ranks outside of the group
        self._work = work

    def wait(self, timeout: float) -> None:
        self._work.wait(timedelta(seconds=timeout))
