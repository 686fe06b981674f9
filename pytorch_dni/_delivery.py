"""What parts have learned, handed over in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .errors import DNIError
from .interfaces._predictions import Lesson
from .interfaces._tie import tie
from .interfaces._unidirectional import UnidirectionalInterface


class Kept:
    """Takes what lessons leave in an interface and its synthesizer, until it counts.

    Args:
        interface: The interface.

    Attributes:
        lesson: Which was given.
    """

    def __init__(self, interface: UnidirectionalInterface) -> None:
        self.lesson = Lesson()
        self._interface = interface
        self._parameters = interface.weights
        self._before: list[Tensor | None] = []
        self._taken: list[Tensor | None] = []
        self._then: tuple[Any, ...]
        self._after: tuple[Any, ...]

    def __enter__(self) -> Kept:
        self._then = self._interface.now()
        self._before = _swap(self._parameters, [None] * len(self._parameters))
        return self

    def __exit__(self, *error: object) -> None:
        self._after = self._interface.now()
        self._interface.back(self._then)
        self._taken = _swap(self._parameters, self._before)
        self._before = []

    def give(self) -> Lesson:
        """Put it where it counts: the gradients where an optimizer looks."""
        self._interface.back(self._after)
        for parameter, grad in zip(self._parameters, self._taken, strict=True):
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        return self.lesson


def _swap(parameters: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Give parameters other gradients; returns those that they had."""
    before = []
    for parameter, grad in zip(parameters, grads, strict=True):
        before.append(parameter.grad)
        if grad is not before[-1]:
            parameter.grad = grad
    return before


class Delivery:
    """What a forward pass has learned, until the backward pass asks for it.

    Attributes:
        grads: Of the parts that have run, by leaf.
        lessons: Of their synthesizers.
    """

    def __init__(self) -> None:
        self.grads: dict[Tensor, Tensor] = {}
        self.lessons: list[Kept] = []
        self._given = False

    def add(self, leaves: Iterable[Tensor], grads: Iterable[Tensor | None]) -> None:
        """Gradients of a part; a parameter may be in several."""
        for leaf, grad in zip(leaves, grads, strict=True):
            if grad is not None:
                before = self.grads.get(leaf)
                self.grads[leaf] = grad if before is None else before + grad

    def behind(self, outputs: Sequence[Tensor], collect: Callable[[Lesson], None]) -> list[Tensor]:
        """The network's outputs, in whose backward pass all is handed over.

        Args:
            outputs: Of the network.
            collect: Takes the lessons.
        """
        self._collect = collect
        return [*tie(outputs, self.grads, self.hand_over)]

    def hand_over(self) -> list[Tensor]:
        """The gradients, once.

        Raises:
            DNIError: They have been given.
        """
        if self._given:
            raise DNIError(
                "eager: the gradients of this forward pass have been handed over already: for "
                "several backward passes through one graph leave eager away"
            )
        self._given = True
        for lesson in self.lessons:
            self._collect(lesson.give())
        # Nobody else may hold them: then they become the parameters' own, and are not copied.
        grads, self.grads, self.lessons = [*self.grads.values()], {}, []
        return grads


class Crossing(Protocol):
    """What crosses a cut."""

    def answer(self, grad: Tensor | None) -> Tensor | None:
        """Take the gradient that has come, of which nothing goes on."""


def go_on(crossing: Crossing, activation: Tensor, anchor: Tensor) -> Tensor:
    """An activation in whose backward pass ``crossing`` is asked, and which is made of nothing.

    Args:
        crossing: The crossing.
        activation: In no graph.
        anchor: A tensor that gradients are asked for, so that the engine goes there: it gets none.
    """
    out: Tensor = _GoOn.apply(crossing, activation, anchor)  # type: ignore[no-untyped-call]
    return out


def goes_on(tensor: Tensor) -> bool:
    """Whether a tensor comes straight out of :func:`go_on`."""
    return isinstance(tensor.grad_fn, _GoOn._backward_cls)


class _GoOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, crossing: Crossing, activation: Tensor, anchor: Tensor) -> Tensor:
        ctx.crossing = crossing
        ctx.set_materialize_grads(False)
        # The same memory, under a version of its own: the synthesizer may have saved the
        # activation, and what follows may change it in place.
        return activation.new_empty(0).set_(activation)  # type: ignore[call-overload, no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[None, None, None]:
        ctx.crossing.answer(grad)
        return None, None, None
