"""Running a network once more without a trace: buffers, inputs, modes and random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, ExitStack

import torch
from torch import nn, Tensor
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from .._torch import version

_WITH_SEEDS = ("cuda", "xpu")  # devices that draw random numbers of their own


class _KeptTensors:
    """Tensors as they were when they were kept."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor, int]] = []
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []

    def keep(self, tensor: Tensor) -> None:
        """Keep a tensor; one on the meta device has no values."""
        if not tensor.is_meta:
            self._kept.append((tensor, tensor.detach().clone(), version(tensor)))

    def keep_buffers(self, module: nn.Module, *_: object) -> None:
        """Keep a module's own buffers."""
        for name, buffer in module.named_buffers(recurse=False):
            if not is_lazy(buffer):
                self._buffers.append((module, name, buffer))
                self.keep(buffer)

    def restore(self) -> None:
        """Give the tensors their values back, and the modules their buffers."""
        with torch.no_grad():
            for tensor, value, count in reversed(self._kept):
                if tensor.shape != value.shape:
                    tensor.resize_(value.shape)  # observers of quantisation grow
                # A change of ``tensor.data`` is not counted.
                if version(tensor) != count or not torch.equal(tensor, value):
                    tensor.copy_(value)
        for module, name, buffer in self._buffers:
            if module.get_buffer(name) is not buffer:
                setattr(module, name, buffer)


@contextmanager
def untouched(network: nn.Module, inputs: Iterable[Tensor]) -> Iterator[None]:
    """Restore modes, buffers, inputs and random numbers when the scope ends.

    The buffers of lazy modules are kept when they get their shape.

    Args:
        network: The network.
        inputs: Tensors that it is given.
    """
    modes = {module: module.training for module in network.modules()}
    inputs = [*inputs]
    kept, python = _KeptTensors(), random.getstate()
    for tensor in inputs:
        kept.keep(tensor)
    with ExitStack() as stack:
        for scope in _random_scopes(network, inputs):
            stack.enter_context(scope)
        for module in modes:
            if isinstance(module, LazyModuleMixin):
                stack.callback(module.register_forward_pre_hook(kept.keep_buffers).remove)
            else:
                kept.keep_buffers(module)
        try:
            yield
        finally:
            random.setstate(python)
            kept.restore()
            for module, mode in modes.items():
                module.training = mode


def _random_scopes(
    network: nn.Module, inputs: Iterable[Tensor]
) -> Iterator[AbstractContextManager[None]]:
    """Return scopes that restore the random numbers of the CPU and of all devices in use."""
    devices = {tensor.device for tensor in (*network.parameters(), *network.buffers(), *inputs)}
    for kind in _WITH_SEEDS:
        own = [device for device in devices if device.type == kind]
        if own:
            yield torch.random.fork_rng(devices=own, device_type=kind)
    yield torch.random.fork_rng(devices=[])
