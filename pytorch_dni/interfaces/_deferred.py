"""Backward passes by hand: at once, or collected and run as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import DNIError

if TYPE_CHECKING:
    from ._learner import Learner
    from ._predictions import Prediction
    from ._unidirectional import UnidirectionalInterface


class Scope:
    """What an open :func:`defer_backward` has collected."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._gradients: list[Tensor | None] = []
        self._lessons: list[tuple[UnidirectionalInterface, Prediction, Tensor]] = []

    def propagate(self, tensor: Tensor, gradient: Tensor | None) -> None:
        """Take in where backpropagation is to start."""
        self._tensors.append(tensor)
        self._gradients.append(gradient)

    def teach(
        self, interface: UnidirectionalInterface, prediction: Prediction, message: Tensor
    ) -> None:
        """Take in what a synthesizer is to learn."""
        self._lessons.append((interface, prediction, message))

    def run(self) -> None:
        """Teach and propagate all that was collected."""
        # First, and with one step for each learner: predictions hold on to the weights that they
        # were made with, and a synthesizer may learn in the pass too.
        learners: dict[Learner, list[tuple[UnidirectionalInterface, Prediction, Tensor]]] = {}
        for interface, prediction, message in self._lessons:
            learners.setdefault(interface.learner, []).append((interface, prediction, message))
        for learner, taught in learners.items():
            learner.train([i.lesson(prediction, message) for i, prediction, message in taught])
        if self._tensors:
            torch.autograd.backward(self._tensors, self._gradients)


_current: ContextVar[Scope | None] = ContextVar("defer_backward", default=None)


def current_scope() -> Scope | None:
    """The open scope of this thread or task, if there is one."""
    return _current.get()


@contextmanager
def defer_backward() -> Iterator[None]:
    """Collect the backward passes of this scope, and run them as one at its end.

    What :func:`backward`, :meth:`BackwardInterface.backward` and ``send`` would do at once waits
    until the scope ends; then gradients that meet in a tensor are added before they go on, and no
    part of the graph is passed twice. If the body raises, all that was collected is forgotten.
    Scopes of other threads and asynchronous tasks are their own.

    Raises:
        DNIError: A scope is open already.

    Example, the last window of a truncated recurrent net::

        with defer_backward():
            backward(loss)             # through the window
            interface.backward(state)  # and what the windows to come would send back
    """
    if _current.get() is not None:
        raise DNIError(
            "defer_backward() is open already in this thread: its scopes do not nest, leave the "
            "inner one away"
        )
    scope = Scope()
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)
    scope.run()


def backward(tensor: Tensor, gradient: Tensor | None = None) -> None:
    """Backpropagate from a tensor: at once, or at the end of a :func:`defer_backward` scope.

    Args:
        tensor: Of any shape.
        gradient: Of that shape; None stands for 1, where the tensor has one element.

    Raises:
        DNIError: The tensor is in no graph, or the gradient is not of its shape.
    """
    check_graph("backward()", tensor)
    if gradient is None and tensor.numel() != 1:
        raise DNIError(
            f"backward() of a tensor of shape {tuple(tensor.shape)} needs a gradient of that "
            "shape: give one, or reduce the tensor to one number"
        )
    if gradient is not None and gradient.shape != tensor.shape:
        raise DNIError(
            f"backward() got a gradient of shape {tuple(gradient.shape)} for a tensor of shape "
            f"{tuple(tensor.shape)}: they must be equal"
        )
    scope = _current.get()
    if scope is None:
        torch.autograd.backward(tensor, gradient)
    else:
        scope.propagate(tensor, gradient)


def check_graph(owner: str, tensor: Tensor) -> None:
    """Raise :class:`DNIError` where a tensor has no gradient to send anywhere."""
    if not tensor.requires_grad:
        raise DNIError(
            f"{owner}: the tensor of shape {tuple(tensor.shape)} needs no gradient: nothing in "
            "front of it can learn. Compute it from parameters that learn, or from a "
            "make_trigger() tensor, without detach() and outside of torch.no_grad()"
        )
