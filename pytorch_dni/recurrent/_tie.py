"""States tied to a network's output: they get their gradients in its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def tie(
    outputs: Sequence[Tensor], states: Sequence[Tensor], answer: Callable[[], list[Tensor]]
) -> tuple[Tensor, ...]:
    """The outputs, in whose backward pass the states get the gradients that ``answer`` gives.

    Though the states are in no loss: one node has them and the outputs as its inputs.
    """
    tied: tuple[Tensor, ...] = _Tie.apply(answer, len(outputs), *outputs, *states)  # type: ignore[no-untyped-call]
    return tied


class _Tie(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, answer: Callable[[], list[Tensor]], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.answer = answer
        ctx.set_materialize_grads(False)
        # Copies, no views: what follows may change them in place.
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return (None, None, *grads, *ctx.answer())
