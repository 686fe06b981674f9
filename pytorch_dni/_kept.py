"""Tensors of a network that are kept, to restore them after what must not count."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn, Tensor
from torch.nn.parameter import is_lazy

from ._torch import overwrite, version


class KeptTensors:
    """Tensors as they were when they were kept.

    Args:
        on_cpu: Keep the copies on the CPU, where a device may have no room for them.
    """

    def __init__(self, on_cpu: bool = False) -> None:
        self._on_cpu = on_cpu
        self._kept: list[tuple[Tensor, Tensor, int | None]] = []
        self._owned: list[tuple[nn.Module, str, Tensor]] = []

    def keep(self, tensor: Tensor) -> None:
        """Keep a tensor; one on the meta device has no values."""
        if not tensor.is_meta:
            device = "cpu" if self._on_cpu else tensor.device
            value = tensor.detach().to(device, copy=True)
            self._kept.append((tensor, value, _version(tensor)))

    def keep_buffers(self, module: nn.Module, *_: object) -> None:
        """Keep a module's own buffers."""
        for name, buffer in module.named_buffers(recurse=False):
            self._keep_owned(module, name, buffer)

    def keep_parameters(self, module: nn.Module) -> None:
        """Keep a module's own parameters."""
        for name, parameter in module.named_parameters(recurse=False):
            self._keep_owned(module, name, parameter)

    def _keep_owned(self, module: nn.Module, name: str, tensor: Tensor) -> None:
        if not is_lazy(tensor):
            self._owned.append((module, name, tensor))
            self.keep(tensor)

    def restore(self) -> None:
        """Give the tensors their values back, and the modules their tensors."""
        with torch.no_grad():
            for tensor, value, count in reversed(self._kept):
                if tensor.shape != value.shape:
                    tensor.resize_(value.shape)  # observers of quantisation grow
                # A change of ``tensor.data`` is not counted.
                changed = count is None or version(tensor) != count
                if changed or not torch.equal(tensor, value.to(tensor.device)):
                    overwrite(tensor, value)
        for module, name, tensor in self._owned:
            if getattr(module, name) is not tensor:
                setattr(module, name, tensor)


class BufferCopies(KeptTensors):
    """The buffers of a network as they are now, such as the running statistics of BatchNorm.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for module in network.modules():
            self.keep_buffers(module)


class RandomStates:
    """The random numbers to come, of the CPU and of a network's devices.

    Those of a network with lazy parameters are left as they are: what such parameters are drawn
    from is not to come again.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._draws_parameters = any(map(is_lazy, network.parameters()))
        devices = {tensor.device for tensor in chain(network.parameters(), network.buffers())}
        kinds = {device: torch.get_device_module(device) for device in devices if _draws(device)}
        self._states = [
            (device, kind, kind.get_rng_state(device)) for device, kind in kinds.items()
        ]
        self._cpu = torch.get_rng_state()

    def restore(self) -> None:
        """Have the same random numbers come again."""
        if self._draws_parameters:
            return
        torch.set_rng_state(self._cpu)
        for device, kind, state in self._states:
            kind.set_rng_state(state, device)


def _draws(device: torch.device) -> bool:
    """Return whether a device has random numbers of its own."""
    return device.type in ("cuda", "xpu")


def _version(tensor: Tensor) -> int | None:
    """Return how often a tensor has been changed; None where PyTorch does not count it."""
    return None if tensor.is_inference() else version(tensor)
