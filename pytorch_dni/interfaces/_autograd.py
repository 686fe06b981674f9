"""What an interface adds to autograd's graph: three functions, all of which use one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .._torch import is_output_of
from ..errors import DNIError


class Crossing(Protocol):
    """One passage of an activation and its gradient across a cut."""

    def forward_message(self, activation: Tensor) -> Tensor:
        """Return what is passed on in the activation's place: a new tensor of its shape."""

    def backward_message(self, grad: Tensor | None) -> Tensor | None:
        """Return what is passed back in the place of a gradient; None stands for no gradient."""


def cross(activation: Tensor, crossing: Crossing) -> Tensor:
    """Pass an activation across a cut, as a node of the graph."""
    crossed: Tensor = _Cross.apply(activation, crossing)  # type: ignore[no-untyped-call]
    return crossed


def is_crossed(tensor: Tensor) -> bool:
    """Return whether a tensor is the direct output of :func:`cross`."""
    return is_output_of(tensor, _Cross)


def detach_at_cut(activation: Tensor, crossing: Crossing, anchor: Tensor) -> Tensor:
    """Pass an activation on without its history; its gradient is given to ``crossing``.

    Args:
        activation: A detached tensor.
        crossing: Receives the gradient; what it returns is ignored.
        anchor: A tensor that the user asks a gradient for, so that the engine visits the node. It
            gets none.
    """
    detached: Tensor = _Detach.apply(activation, crossing, anchor)  # type: ignore[no-untyped-call]
    return detached


def is_detached_at_cut(tensor: Tensor) -> bool:
    """Return whether a tensor is the direct output of :func:`detach_at_cut`."""
    return is_output_of(tensor, _Detach)


def attach_gradients(
    outputs: Sequence[Tensor],
    tensors: Iterable[Tensor],
    gradients: Callable[[Sequence[Tensor | None]], Sequence[Tensor | None]],
) -> tuple[Tensor, ...]:
    """Return the outputs, in whose backward pass tensors get the gradients that are given.

    The tensors need not be in the loss: one node has them and the outputs as its inputs.

    Args:
        outputs: Outputs of the network.
        tensors: Tensors that get gradients.
        gradients: Called in the backward pass with the gradients of the outputs; returns one
            gradient for each tensor. Nobody else may hold these: they may become the ``grad`` of a
            parameter.
    """
    attached: tuple[Tensor, ...] = _Attach.apply(gradients, len(outputs), *outputs, *tensors)  # type: ignore[no-untyped-call]
    return attached


def in_same_memory(activation: Tensor) -> Tensor:
    """Return a tensor in the memory of another one, with a count of changes of its own.

    A graph may have saved the other one, and later layers may change the returned one in place.
    """
    return activation.new_empty(0).set_(activation)  # type: ignore[call-overload, no-any-return]


def first_order(grad: Tensor | None) -> Tensor | None:
    """Return a synthetic gradient that cannot be differentiated again, where somebody may try.

    That is in a backward pass with ``create_graph=True``; differentiating it raises
    :class:`DNIError`.
    """
    if grad is None or not torch.is_grad_enabled():
        return grad
    once: Tensor = _FirstOrder.apply(grad.detach().requires_grad_())  # type: ignore[no-untyped-call]
    return once


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        raise DNIError(
            "a synthetic gradient (create_graph=True) cannot be differentiated again: take "
            "bp_lambda=1, at which the default way passes on the true gradient, or compute this "
            "loss in eval(), where the network has no cuts"
        )


class _Cross(torch.autograd.Function):
    # The output is a new tensor, no view: later layers may change it in place.
    @staticmethod
    def forward(ctx: Any, activation: Tensor, crossing: Crossing) -> Tensor:
        ctx.crossing = crossing
        # Where no later layer learns there is no gradient, rather than one of zeros.
        ctx.set_materialize_grads(False)
        return crossing.forward_message(activation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        with torch.no_grad():
            passed = ctx.crossing.backward_message(grad)
        return first_order(passed), None


class _Detach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activation: Tensor, crossing: Crossing, anchor: Tensor) -> Tensor:
        ctx.crossing = crossing
        ctx.set_materialize_grads(False)
        return crossing.forward_message(activation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[None, None, None]:
        with torch.no_grad():
            ctx.crossing.backward_message(grad)
        return None, None, None


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gradients: Callable[[Sequence[Tensor | None]], Sequence[Tensor | None]],
        count: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.gradients = gradients
        ctx.set_materialize_grads(False)
        # Copies, no views: the user may change them in place.
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        with torch.no_grad():
            given = ctx.gradients(grads)
        return (None, None, *grads, *map(first_order, given))
