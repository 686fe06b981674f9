"""Copies of a network's buffers, to restore them after a pass that must not count."""

from __future__ import annotations

from torch import nn

from ._torch import overwrite


class BufferCopies:
    """The buffers of a network as they are now, such as the running statistics of BatchNorm.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._saved = [
            (module, name, buffer, buffer.detach().clone())
            for module in network.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def restore(self) -> None:
        """Give each buffer its tensor and its values back."""
        for module, name, buffer, values in self._saved:
            setattr(module, name, buffer)
            overwrite(buffer, values)
