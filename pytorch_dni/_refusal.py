"""A forward pass that the library refuses changes nothing in the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ._kept import BufferCopies, RandomStates
from ._tree import tensor_shapes
from .context import current_context


class Refusal:
    """Restores buffers and random numbers after a forward pass that was refused.

    Whether a context fits is known at a cut, when layers before it have run, and may have changed
    their buffers (BatchNorm) or drawn random numbers (dropout). So these are copied before a pass
    that may be refused: the first one, and one whose context and inputs are not of the same shapes
    as those of the last pass.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._accepted: object = None  # of the last pass: the shapes by which it may be refused
        self._running: object = None
        self._copies: tuple[BufferCopies, RandomStates] | None = None
        self._trains = False  # whether the running pass is one of training

    def __getstate__(self) -> dict[str, Any]:
        # Copies belong to the buffers of one network.
        return {**self.__dict__, "_copies": None}

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Begin a forward pass with these arguments; return whether it is one of training."""
        self._copies = None
        self._trains = self._network.training and torch.is_grad_enabled()
        if not self._trains:
            return False
        context = current_context()
        self._running = True
        if context is not None:
            self._running = (context.raw.shape, context.raw.dtype, tensor_shapes((args, kwargs)))
        if self._running != self._accepted:
            self._copies = BufferCopies(self._network), RandomStates(self._network)
        return True

    def accept(self) -> bool:
        """Note that the pass has ended well; return whether it was one of training."""
        if self._copies is not None:
            self._accepted, self._copies = self._running, None
        trained, self._trains = self._trains, False
        return trained

    def restore(self, refused: bool) -> None:
        """End a pass that raised; ``refused`` restores buffers and random numbers."""
        copies, self._copies = self._copies, None
        if refused and copies is not None:
            for copy in copies:
                copy.restore()
