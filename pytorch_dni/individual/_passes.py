"""Forward and backward passes of a network whose per-example gradients are taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._torch import current_backward_pass
from ..errors import DNIError
from ._checks import PassCheck
from ._forms import FullGradients
from ._quantities import Quantity
from ._torch import keeps_graph
from ._uses import Layer, Use


class Passes:
    """Receives output gradients of layers, and sorts them by backward pass.

    A backward pass that begins forgets what the one before has computed. Gradients that a wrapper
    computes inside a forward pass (eager learning) belong together with those of the backward pass
    that follows.

    Args:
        quantity: What is computed.
        grad: Whether the summed gradients are computed too.
        mean: Whether the loss is the mean over the batch.
    """

    def __init__(self, quantity: Quantity[Any], grad: bool, mean: bool) -> None:
        self.grad, self.forward_pass = grad, 0
        self._quantity, self._mean = quantity, mean
        self._check: PassCheck
        self.tracking, self.notes_nodes = True, grad
        self._active, self._paused = True, 0
        self._in_forward = 0
        self._uses: dict[str, int] = {}
        self._running: tuple[str, int] | None = None
        self._engine_pass: int | None = None
        self._keeps_graph, self._plain_mode, self._first = False, False, True
        self._batch: tuple[int, Layer] | None = None

    def check_with(self, check: PassCheck) -> None:
        """Have backward passes checked."""
        self._check = check

    def pause(self, change: int) -> None:
        """Pause the recording of uses with 1, go on with -1."""
        self._paused += change
        self.tracking = self._active and not self._paused

    def begin_forward(self) -> None:
        """Note that a forward pass of the network begins."""
        self._in_forward += 1
        if self._in_forward == 1:
            self.forward_pass += 1

    def end_forward(self) -> None:
        """Note that a forward pass of the network has ended."""
        self._in_forward -= 1

    def end(self) -> None:
        """Take no more gradients; what has been computed stays."""
        self._quantity.values()
        self._active = self.tracking = False

    def count(self, group: str, change: int) -> None:
        """Count the uses of a group of layers whose graph is alive."""
        self._uses[group] = self._uses.get(group, 0) + change

    def note_nodes(self, layer: Layer, first: int, end: int) -> None:
        """Note the numbers of the graph's nodes that a layer has made."""
        self._check.note_nodes(layer, first, end)

    def note_backward_pass(self, number: int) -> None:
        """Note that a forward pass runs inside a backward pass, as in checkpointing.

        What it makes may get its gradients in a backward pass inside that one.
        """
        if self._running is None or self._running[1] != number or self._running[0] != "backward":
            self._begin("backward", number)

    def receive(self, use: Use, grads: tuple[Tensor, ...]) -> None:
        """Take the output gradients of a use, in a backward pass."""
        if not self._active:
            return
        number = current_backward_pass()
        if number != self._engine_pass or self._in_forward:
            self._enter(use, number, grads[0].device.type)
        self._check_batch(use, grads[0].shape)
        if self._plain_mode:
            self._compute(use, grads)
        else:
            with torch.no_grad(), torch.autocast(grads[0].device.type, enabled=False):
                self._compute(use, grads)
        if not self._keeps_graph:
            use.release()

    def _compute(self, use: Use, grads: tuple[Tensor, ...]) -> None:
        """Compute the gradients of a use, and give them to the quantity."""
        layer, quantity = use.layer, self._quantity
        if self._mean:
            size = grads[0].shape[use.batch_dim]
            grads = tuple([grad * size for grad in grads])
        alone = self._uses[layer.group] == 1
        for local, found in use.gradients(grads).items():
            name = layer.names.get(local)
            if name is not None:
                form = FullGradients(found) if isinstance(found, Tensor) else found
                if self._first:
                    self._check.check_form(layer, local, form, self._batch)
                quantity.receive(name, form, alone)

    def _enter(self, use: Use, number: int | None, device: str) -> None:
        """Begin with a new backward pass, or go on with the one that runs."""
        assert number is not None  # output gradients come in backward passes alone
        running = self._running
        self._engine_pass, self._keeps_graph = number, keeps_graph()
        # Modes of the thread do not change in a backward pass.
        self._plain_mode = not (torch.is_grad_enabled() or torch.is_autocast_enabled(device))
        if self._in_forward:
            if running != ("forward", self.forward_pass):
                self._begin("forward", self.forward_pass)
        elif running is None or (
            running != ("backward", number)
            and running != ("forward", use.forward_pass)
            and (running[0] != "backward" or use.made_in != running[1])
        ):
            self._begin("backward", number)

    def _begin(self, kind: str, number: int) -> None:
        self._first = self._running is None
        self._running, self._batch, self.notes_nodes = (kind, number), None, False
        self._quantity.begin()
        if self._first:
            self._check.check_pass()

    def _check_batch(self, use: Use, shape: torch.Size) -> None:
        dim, known = use.batch_dim, self._batch
        size = shape[dim] if len(shape) > dim else None
        if known is not None and size == known[0]:
            return
        if known is None and size is not None:
            self._batch = size, use.layer
        else:
            other = "" if known is None else f", {known[1].description} {known[0]}"
            raise DNIError(
                f"{use.layer.description} has {size} examples in dimension {dim}{other}: all "
                "layers must have the examples in one dimension; give batch_dim the dimension of "
                "each layer that has another"
            )
