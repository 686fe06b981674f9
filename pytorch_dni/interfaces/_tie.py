"""Tensors tied to a network's output: they get their gradients in its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def tie(
    outputs: Sequence[Tensor], tensors: Iterable[Tensor], answer: Callable[[], list[Tensor]]
) -> tuple[Tensor, ...]:
    """The outputs, in whose backward pass the tensors get the gradients that ``answer`` gives.

    Though these are in no loss: one node has them and the outputs as its inputs.
    """
    tied: tuple[Tensor, ...] = _Tie.apply(answer, len(outputs), *outputs, *tensors)  # type: ignore[no-untyped-call]
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
        # What is handed over is held by nobody else: it may become a parameter's own gradient.
        return (None, None, *grads, *ctx.answer())
