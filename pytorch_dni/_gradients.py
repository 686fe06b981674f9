"""Gradients of parameters before they are written to ``grad``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from torch import nn, Tensor

from ._torch import storage_number

#: Parameters, and what is to be added to their ``grad``.
ParameterGrads = list[tuple[nn.Parameter, Tensor]]
T = TypeVar("T", bound=Tensor)


def parameter_grads(
    parameters: Iterable[nn.Parameter], found: Iterable[Tensor | None]
) -> ParameterGrads:
    """Pair parameters with the gradients that autograd found, laid out as in ``grad``.

    Each gradient gets memory of its own and the layout of its parameter: fused optimizers rely on
    it, and users change ``grad`` in place.
    """
    grads: ParameterGrads = []
    taken: set[int] = set()
    for parameter, grad in zip(parameters, found, strict=True):
        if grad is None:
            continue
        if grad.layout == torch.strided:
            if grad.stride() != parameter.stride() or storage_number(grad) in taken:
                grad = torch.empty_like(parameter).copy_(grad)
            taken.add(storage_number(grad))
        grads.append((parameter, grad))
    return grads


class GradientSums(Generic[T]):
    """Adds up gradients of tensors that get several, in the order in which the tensors came.

    Tensors are told apart by identity: a tensor's own hash takes longer than all of this.
    """

    def __init__(self) -> None:
        self._sums: dict[int, tuple[T, Tensor]] = {}

    def add(self, tensor: T, grad: Tensor) -> None:
        """Add a gradient of a tensor."""
        before = self._sums.get(id(tensor))
        self._sums[id(tensor)] = tensor, grad if before is None else before[1] + grad

    def tensors(self) -> list[T]:
        """Return the tensors that got a gradient."""
        return [tensor for tensor, _ in self._sums.values()]

    def take(self) -> list[tuple[T, Tensor]]:
        """Return all tensors with their sums, and keep no reference to them."""
        found = [*self._sums.values()]
        self._sums = {}
        return found
