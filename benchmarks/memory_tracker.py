"""Peak memory of a training step on the CPU, counted in bytes of the tensors that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from torch import nn, Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode


class _Storage(NamedTuple):
    """Memory of one or more tensors.

    Attributes:
        reference: Expires when the memory is freed.
        size: Number of bytes.
        number: Distinguishes it from memory that is at the same address later.
    """

    reference: StorageWeakRef
    size: int
    number: int


class MemoryTracker(TorchDispatchMode):
    """While active, records when memory of tensors is allocated and freed.

    Args:
        parameters: Parameters; :meth:`mark_gradients` finds their gradients.
        ignored: Other tensors whose memory does not count.
    """

    def __init__(self, parameters: Iterable[Tensor], ignored: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parameters = [*parameters]
        self._ignored = {_address(tensor) for tensor in [*self._parameters, *ignored]}
        self._allocated: dict[int, _Storage] = {}
        self._changes: list[tuple[int, int]] = []  # number of the storage, change in bytes
        self._gradients: set[int] = set()
        self._count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._record_freed()
        for tensor in _tensors(output):
            self._record_allocated(tensor)
        return output

    def _record_freed(self) -> None:
        freed = [key for key, storage in self._allocated.items() if storage.reference.expired()]
        for address in freed:
            storage = self._allocated.pop(address)
            self._changes.append((storage.number, -storage.size))

    def _record_allocated(self, tensor: Tensor) -> None:
        address = _address(tensor)
        if address in self._ignored or address in self._allocated:
            return
        storage = tensor.untyped_storage()
        self._count += 1
        size = storage.nbytes()
        self._allocated[address] = _Storage(StorageWeakRef(storage), size, self._count)
        self._changes.append((self._count, size))

    def mark_gradients(self, *ignored: object) -> None:
        """Mark the memory of the parameters' current gradients; can be a hook of an optimizer."""
        for parameter in self._parameters:
            if parameter.grad is not None and _address(parameter.grad) in self._allocated:
                self._gradients.add(self._allocated[_address(parameter.grad)].number)

    def peaks(self) -> tuple[int, int]:
        """Return the largest number of bytes: without gradients of parameters, and with them."""
        without = with_ = most_without = most_with = 0
        for number, change in self._changes:
            with_ += change
            without += 0 if number in self._gradients else change
            most_without, most_with = max(most_without, without), max(most_with, with_)
        return most_without, most_with


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(output: Any) -> Iterator[Tensor]:
    """Return the tensors in the output of an operator."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from _tensors(part)


def peak_memory(
    step: Callable[[], None],
    network: nn.Module,
    synthesizer_parameters: Iterable[Tensor],
    optimizers: Iterable[Optimizer],
) -> tuple[int, int]:
    """Measure the peak memory of a training step, without what exists before the step.

    Args:
        step: Takes one training step.
        network: The network.
        synthesizer_parameters: Parameters of the synthesizers.
        optimizers: All optimizers that take a step in it.

    Returns:
        Bytes without the gradients of parameters, and with them.
    """
    for parameter in network.parameters():
        parameter.grad = None
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    optimizer_tensors = [v for state in states for v in state.values() if isinstance(v, Tensor)]
    tracker = MemoryTracker(
        [*network.parameters(), *synthesizer_parameters], [*network.buffers(), *optimizer_tensors]
    )
    handles = [o.register_step_pre_hook(tracker.mark_gradients) for o in optimizers]
    try:
        with tracker:
            step()
    finally:
        for handle in handles:
            handle.remove()
    tracker.mark_gradients()
    return tracker.peaks()
