"""Counting the bytes that live tensors hold on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn, Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_dni._tree import map_tensors


class Live(TorchDispatchMode):
    """While active, notes when storages come and go.

    Those of parameters, buffers and all else that was there before count in nothing; neither do
    those that end as a parameter's gradient, be it the network's or a synthesizer's, though a
    second figure tells of them.
    """

    def __init__(self, parameters: Iterable[Tensor], before: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parameters = [*parameters]
        self._known = {_key(t) for t in [*self._parameters, *before]}
        self._alive: dict[int, tuple[StorageWeakRef, int, int]] = {}
        self._log: list[tuple[int, int]] = []
        self._gradients: set[int] = set()
        self._count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._bury()
        map_tensors(output, self._note)
        return output

    def _bury(self) -> None:
        for key in [key for key, (ref, _, _) in self._alive.items() if ref.expired()]:
            _, size, number = self._alive.pop(key)
            self._log.append((number, -size))

    def _note(self, tensor: Tensor) -> Tensor:
        key = _key(tensor)
        if key not in self._known and key not in self._alive:
            storage = tensor.untyped_storage()
            self._count += 1
            self._alive[key] = StorageWeakRef(storage), storage.nbytes(), self._count
            self._log.append((self._count, storage.nbytes()))
        return tensor

    def gradients(self, *ignored: object) -> None:
        """What the parameters' ``grad`` hold now are gradients; also a hook of optimizers."""
        for parameter in self._parameters:
            if parameter.grad is not None and _key(parameter.grad) in self._alive:
                self._gradients.add(self._alive[_key(parameter.grad)][2])

    def peaks(self) -> tuple[int, int]:
        """Most bytes at a time: without gradients of parameters, and with them."""
        without = with_ = most_without = most_with = 0
        for number, size in self._log:
            with_ += size
            without += 0 if number in self._gradients else size
            most_without, most_with = max(most_without, without), max(most_with, with_)
        return most_without, most_with


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def peaks(
    step: Callable[[], None],
    network: nn.Module,
    synthesizers: Iterable[Tensor],
    optimizers: Iterable[Optimizer],
) -> tuple[int, int]:
    """Most live bytes in a step: without gradients of parameters, and with them.

    Args:
        step: One step.
        network: The network.
        synthesizers: Parameters of synthesizers.
        optimizers: Those that step them, in the step.
    """
    for parameter in network.parameters():
        parameter.grad = None
    state = [v for o in optimizers for s in o.state.values() for v in s.values()]
    tensors = [v for v in state if isinstance(v, Tensor)]
    live = Live([*network.parameters(), *synthesizers], [*network.buffers(), *tensors])
    handles = [o.register_step_pre_hook(live.gradients) for o in optimizers]
    try:
        with live:
            step()
    finally:
        for handle in handles:
            handle.remove()
    live.gradients()
    return live.peaks()
