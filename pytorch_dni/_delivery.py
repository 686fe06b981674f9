"""What parts have learned, handed over in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn, Tensor
from torch.autograd.function import once_differentiable

from .errors import DNIError
from .interfaces._predictions import Lesson


class Kept:
    """Takes the gradients that lessons leave in a synthesizer's parameters, until they count.

    Args:
        synthesizer: The synthesizer.

    Attributes:
        lesson: Which was given.
    """

    def __init__(self, synthesizer: nn.Module) -> None:
        self._parameters = [*synthesizer.parameters()]
        self._before: list[Tensor | None] = []
        self._taken: list[Tensor | None] = []
        self.lesson = Lesson()

    def __enter__(self) -> Kept:
        self._before = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return self

    def __exit__(self, *error: object) -> None:
        self._taken = [parameter.grad for parameter in self._parameters]
        for parameter, grad in zip(self._parameters, self._before, strict=True):
            parameter.grad = grad
        self._before = []

    def give(self) -> Lesson:
        """Put them where an optimizer looks."""
        for parameter, grad in zip(self._parameters, self._taken, strict=True):
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        return self.lesson


class Delivery:
    """What a part learned, until the backward pass asks for it.

    Args:
        reach: Called with the gradient that comes to the cut, whether it is that of the last part,
            and ``lesson``.
        leaves: The part's parameters.
        grads: Their gradients.
        lesson: What the part taught the synthesizer before it.
    """

    def __init__(
        self,
        reach: Callable[[Tensor | None, bool, Kept | None], None],
        leaves: list[Tensor],
        grads: list[Tensor | None],
        lesson: Kept | None,
    ) -> None:
        self.leaves = leaves
        self._reach: Callable[[Tensor | None, bool, Kept | None], None] | None = reach
        self._grads = grads
        self._lesson = lesson

    def __call__(self, true: Tensor | None, last: bool) -> list[Tensor | None]:
        """The gradients, once.

        Raises:
            DNIError: They have been given.
        """
        reach, self._reach = self._reach, None
        if reach is None:
            raise DNIError(
                "eager: the gradients of this forward pass have been handed over already: for "
                "several backward passes through one graph leave eager away"
            )
        reach(true, last, self._lesson)
        # Nobody else may hold them: then they become the parameters' own, and are not copied.
        grads, self._grads, self._lesson = self._grads, [], None
        return grads


def deliver(delivery: Delivery, value: Tensor, token: Tensor | None) -> tuple[Tensor, Tensor]:
    """An activation behind which a delivery waits, and the token that the next one takes.

    By the tokens the backward pass gets from one delivery to the one before.
    """
    out: tuple[Tensor, Tensor] = _Deliver.apply(delivery, value, token, *delivery.leaves)  # type: ignore[no-untyped-call]
    return out


def is_delivered(tensor: Tensor) -> bool:
    """Whether a tensor comes straight out of a cut of this kind."""
    return isinstance(tensor.grad_fn, _Deliver._backward_cls)


class _Deliver(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, delivery: Delivery, value: Tensor, token: Tensor | None, *leaves: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.delivery = delivery
        ctx.first = token is None
        ctx.set_materialize_grads(False)
        # The same memory, no view: what follows may change it in place.
        ctx.mark_dirty(value)
        return value, value.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, token: Tensor | None) -> tuple[Any, ...]:
        grads = ctx.delivery(grad, token is None)
        return None, None, None if ctx.first else torch.empty(0), *grads
