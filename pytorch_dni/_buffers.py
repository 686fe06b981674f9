"""Copies of a network's buffers, to restore them after a pass that must not count."""

from __future__ import annotations

import torch
from torch import nn, Tensor
from torch.nn.parameter import is_lazy

from ._torch import overwrite, version


class KeptTensors:
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
                    overwrite(tensor, value)
        for module, name, buffer in self._buffers:
            if module.get_buffer(name) is not buffer:
                setattr(module, name, buffer)


class BufferCopies(KeptTensors):
    """The buffers of a network as they are now, such as the running statistics of BatchNorm.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for module in network.modules():
            self.keep_buffers(module)
