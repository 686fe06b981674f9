"""Running a network once more without a trace: buffers, inputs, modes and random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, ExitStack

import torch
from torch import nn, Tensor
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from .._kept import KeptTensors

_WITH_SEEDS = ("cuda", "xpu")  # devices that draw random numbers of their own


@contextmanager
def untouched(network: nn.Module, inputs: Iterable[Tensor]) -> Iterator[None]:
    """Restore modes, buffers, inputs and random numbers when the scope ends.

    The buffers of lazy modules are kept when they get their shape. The random numbers that their
    parameters are drawn from stay drawn: they are not to come again.

    Args:
        network: The network.
        inputs: Tensors that it is given.
    """
    modes = {module: module.training for module in network.modules()}
    inputs = [*inputs]
    kept, python = KeptTensors(), random.getstate()
    draws_parameters = any(map(is_lazy, network.parameters()))
    for tensor in inputs:
        kept.keep(tensor)
    with ExitStack() as stack:
        if not draws_parameters:
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
            if not draws_parameters:
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
