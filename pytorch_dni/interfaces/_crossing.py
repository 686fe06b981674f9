"""What crosses a cut, as a node in the graph: another value forward, another gradient backward."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Crossing(Protocol):
    """One passage of an activation across a cut."""

    def value(self, activation: Tensor) -> Tensor:
        """What goes on in its place: a new tensor, of its shape and type."""

    def answer(self, grad: Tensor | None) -> Tensor | None:
        """What goes back for the gradient that came; None on either side is no gradient at all."""


def cross(activation: Tensor, crossing: Crossing) -> Tensor:
    """Pass an activation across a cut."""
    crossed: Tensor = _Cross.apply(activation, crossing)  # type: ignore[no-untyped-call]
    return crossed


def is_crossing(tensor: Tensor) -> bool:
    """Whether a tensor comes straight out of :func:`cross`."""
    return isinstance(tensor.grad_fn, _Cross._backward_cls)


class _Cross(torch.autograd.Function):
    # A new tensor comes out, no view: what follows may change it in place.
    @staticmethod
    def forward(ctx: Any, activation: Tensor, crossing: Crossing) -> Tensor:
        ctx.crossing = crossing
        # Where nothing learns behind the cut, no gradient comes, rather than one of zeros.
        ctx.set_materialize_grads(False)
        return crossing.value(activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        return ctx.crossing.answer(grad), None
