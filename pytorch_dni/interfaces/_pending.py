"""What a true message teaches an interface, until it is applied or dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn, Tensor

from .._gradients import parameter_grads, ParameterGrads
from .._normalization import Scalar

Undo = Callable[[], None]
Change = Callable[[], "Undo | None"]  # returns what takes it back, if anything does


class Lesson(NamedTuple):
    """What a synthesizer learns from one true message.

    Attributes:
        grads: Gradients of the synthesizer's parameters, where they are known already.
        output: Tensor at which backpropagation into the synthesizer starts; None where it is not
            needed.
        error: Gradient of ``output``.
        square: A sum of squares that is not finite where something overflowed, of the true message
            or of a local loss's gradients; None where nobody measured it.
        again: Computes the same lesson for a synthesizer that has learned since.
    """

    grads: ParameterGrads | None = None
    output: Tensor | None = None
    error: Tensor | None = None
    square: Scalar | None = None
    again: Callable[[], Lesson] | None = None

    def with_parameter_grads(self, parameters: Sequence[nn.Parameter]) -> Lesson:
        """Return the same lesson, with the gradients of parameters in the place of the graph."""
        if self.output is None:
            return self
        asked = [parameter for parameter in parameters if parameter.requires_grad]
        found = torch.autograd.grad(self.output, asked, self.error, allow_unused=True)
        return Lesson(parameter_grads(asked, found), square=self.square, again=self.again)


class PendingUpdate:
    """A lesson, and the changes of an interface's state that belong to it.

    Nothing has changed until :meth:`apply` is called, and nothing changes if it never is. Several
    updates of one interface may be pending: each is applied to the state that it finds.

    Args:
        lesson: The lesson.
        changes: Functions that change the state.

    Attributes:
        undos: Once it is applied, functions that take its changes back, in their order.
    """

    def __init__(self, lesson: Lesson, *changes: Change) -> None:
        self._lesson = lesson
        self._changes = changes
        self.undos: list[Undo] = []

    def apply(self) -> Lesson:
        """Change the state of the interface, and return the lesson for its learner."""
        for change in self._changes:
            undo = change()
            if undo is not None:
                self.undos.append(undo)
        return self._lesson

    def also(self, *changes: Change) -> PendingUpdate:
        """Return an update that makes further changes."""
        return PendingUpdate(self._lesson, *self._changes, *changes)

    def repeated_by(self, again: Callable[[], Lesson]) -> PendingUpdate:
        """Return an update whose lesson can be computed again."""
        return PendingUpdate(self._lesson._replace(again=again), *self._changes)

    def with_parameter_grads(self, parameters: Sequence[nn.Parameter]) -> PendingUpdate:
        """Return an update that holds no graph of the synthesizer."""
        return PendingUpdate(self._lesson.with_parameter_grads(parameters), *self._changes)
