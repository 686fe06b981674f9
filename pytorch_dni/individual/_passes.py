"""Forward and backward passes of a network whose per-example gradients are taken."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor

from .._torch import current_backward_pass
from ..errors import DNIError
from ._checks import PassCheck
from ._quantities import Quantity
from ._rules import as_form
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
        self._active, self._paused = True, 0
        self._in_forward = 0
        self._uses: dict[str, int] = {}
        self._running: tuple[str, int] | None = None
        self._delivering: int | None = None
        self._batch: tuple[int, Layer] | None = None

    def check_with(self, check: PassCheck) -> None:
        """Have backward passes checked."""
        self._check = check

    def is_tracking(self) -> bool:
        """Return whether uses are to be recorded now."""
        return self._active and not self._paused

    def pause(self, change: int) -> None:
        """Pause the recording of uses with 1, go on with -1."""
        self._paused += change

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
        self._active = False

    def count(self, names: Mapping[str, str], change: int) -> None:
        """Count the uses of parameters whose graph is alive."""
        uses = self._uses
        for name in names.values():
            uses[name] = uses.get(name, 0) + change

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
        self._enter(use)
        grad = grads[0]
        self._check_batch(use, grad.shape[use.batch_dim] if grad.dim() > use.batch_dim else None)
        with ExitStack() as stack:
            for mode in _modes(grad):
                stack.enter_context(mode)
            if self._mean:
                size = grad.shape[use.batch_dim]
                grads = tuple([grad * size for grad in grads])
            names, uses = use.layer.names, self._uses
            for local, found in use.gradients(grads).items():
                name = names.get(local)
                if name is not None:
                    form = as_form(found)
                    self._check.check_form(use.layer, local, form, len_of=self._batch)
                    self._quantity.receive(name, form, alone=uses[name] == 1)
        if not keeps_graph():
            use.release()

    def _enter(self, use: Use) -> None:
        """Begin with a new backward pass, or go on with the one that runs."""
        number, running = current_backward_pass(), self._running
        assert number is not None  # output gradients come in backward passes alone
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
        self._running, self._batch = (kind, number), None
        self._quantity.begin()
        self._check.begin()

    def _check_batch(self, use: Use, size: int | None) -> None:
        if self._batch is None and size is not None:
            self._batch = size, use.layer
        if size is None or self._batch is None or size != self._batch[0]:
            known = (
                "" if self._batch is None else (f", {self._batch[1].description} {self._batch[0]}")
            )
            raise DNIError(
                f"{use.layer.description} has {size} examples in dimension {use.batch_dim}{known}: "
                "all layers must have the examples in one dimension; give batch_dim the dimension "
                "of each layer that has another"
            )


def _modes(grad: Tensor) -> list[AbstractContextManager[Any]]:
    """Return the contexts in which gradients are computed: no graph, no autocast."""
    modes: list[AbstractContextManager[Any]] = []
    if torch.is_grad_enabled():
        modes.append(torch.no_grad())
    if torch.is_autocast_enabled(grad.device.type):
        modes.append(torch.autocast(grad.device.type, enabled=False))
    return modes
