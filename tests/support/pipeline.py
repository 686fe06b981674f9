"""Pipelines inside one process: a thread for each rank, and messages in memory."""

import queue
import threading
from datetime import timedelta

import torch
from torch import distributed

from pytorch_dni.distributed import Connection


class MemoryWork:
    def __init__(self, finish):
        self._finish = finish

    def wait(self, timeout):
        self._finish(timeout)


class MemoryTransport:
    """Messages in queues that the threads of all ranks share."""

    def __init__(self, rank, queues, lock):
        self._rank, self._queues, self._lock = rank, queues, lock

    def _queue(self, *key):
        with self._lock:
            return self._queues.setdefault(key, queue.Queue())

    def send(self, buffer, to, tag):
        self._queue(self._rank, to, tag).put(buffer.clone())
        return MemoryWork(lambda timeout: None)

    def receive(self, buffer, source, tag):
        def finish(timeout):
            try:
                sent = self._queue(source, self._rank, tag).get(timeout=timeout)
            except queue.Empty:
                raise RuntimeError("nothing came in time") from None
            buffer[: len(sent)] = sent

        return MemoryWork(finish)


def run_ranks(count, work, timeout=20.0):
    """Call ``work(connection)`` in a thread for each rank; return the results, or raise the first.

    Where several ranks raise, errors about lost ranks come last: they follow from the others.
    """
    store, queues, lock = distributed.HashStore(), {}, threading.Lock()
    store.set_timeout(timedelta(seconds=timeout))
    results, errors = [None] * count, [None] * count

    def run(rank):
        transport = MemoryTransport(rank, queues, lock)
        try:
            results[rank] = work(Connection(rank, count, transport, store))
        except BaseException as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * timeout)
        assert not thread.is_alive(), "a rank hangs"
    found = [error for error in errors if error is not None]
    if found:
        raise sorted(found, key=lambda error: isinstance(error, ConnectionError))[0]
    return results


def batches(count, rows, inputs, classes, seed=0, last=None):
    """Return batches of a task that can be learned; the last one may be smaller."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(inputs, classes, generator=torch.Generator().manual_seed(99))
    found = []
    for number in range(count):
        size = last if last is not None and number == count - 1 else rows
        x = torch.randn(size, inputs, generator=draw)
        found.append((x, (x @ weight).argmax(1)))
    return found
