"""Backward passes by hand: at once, or collected and run as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from .._checks import check_tensor
from ..errors import DNIError
from ._learner import Learner
from ._pending import PendingUpdate

MakeUpdate = Callable[[], PendingUpdate]


class Scope:
    """What an open :func:`defer_backward` has collected."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._gradients: list[Tensor | None] = []
        self._updates: dict[Learner, list[MakeUpdate]] = {}

    def add_backward(self, tensor: Tensor, gradient: Tensor | None) -> None:
        """Add a tensor at which backpropagation starts."""
        self._tensors.append(tensor)
        self._gradients.append(gradient)

    def add_update(self, learner: Learner, update: MakeUpdate) -> None:
        """Add what a synthesizer is to learn."""
        self._updates.setdefault(learner, []).append(update)

    def run(self) -> None:
        """Train on all updates, then backpropagate all tensors."""
        # Synthesizers learn first, with one step for each learner: predictions hold the weights
        # that they were made with, and a synthesizer may learn in the backward pass too.
        for learner, updates in self._updates.items():
            learner.train(update() for update in updates)
        if self._tensors:
            torch.autograd.backward(self._tensors, self._gradients)


_current: ContextVar[Scope | None] = ContextVar("defer_backward", default=None)


def current_scope() -> Scope | None:
    """Return the open scope of this thread or task; None without one."""
    return _current.get()


@contextmanager
def defer_backward() -> Iterator[None]:
    """Collect the backward passes of this scope, and run them as one at its end.

    What :func:`backward`, :meth:`BackwardInterface.backward` and ``send`` would do at once waits
    until the scope ends. Then gradients of one tensor are added before they are passed on, and no
    part of the graph is passed twice. If the body raises, all that was collected is dropped.
    Each thread and each asynchronous task has scopes of its own.

    Raises:
        DNIError: A scope is open already.

    Example, the last window of a truncated recurrent net::

        with defer_backward():
            backward(loss)             # through the window
            interface.backward(state)  # and what later windows would send back
    """
    if _current.get() is not None:
        raise DNIError(
            "defer_backward() is open already in this thread: its scopes do not nest, leave the "
            "inner one out"
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
        tensor: A tensor of any shape.
        gradient: Its gradient, of the same shape; None stands for 1 where the tensor has one
            element.

    Raises:
        DNIError: The tensor has no graph, or the gradient is not of its shape.
    """
    check_graph("backward()", tensor)
    if gradient is not None:
        check_tensor("backward(): the gradient", gradient)
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
        scope.add_backward(tensor, gradient)


def check_graph(owner: str, tensor: Tensor) -> None:
    """Raise :class:`DNIError` where a tensor has no graph to backpropagate through."""
    check_tensor(f"{owner}: what is backpropagated", tensor)
    if not tensor.requires_grad:
        raise DNIError(
            f"{owner}: the tensor of shape {tuple(tensor.shape)} needs no gradient: no earlier "
            "layer can learn from it. Compute it from parameters that learn, or from a "
            "make_trigger() tensor, without detach() and outside of torch.no_grad()"
        )
