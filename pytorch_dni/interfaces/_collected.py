"""The lessons of a running backward pass."""

from __future__ import annotations

from torch import nn

from .._gradients import GradientSums
from ._pending import Lesson


class Collected:
    """The lessons of a running backward pass, one after the other."""

    def __init__(self) -> None:
        self._lessons: list[Lesson] = []
        self._grads: GradientSums[nn.Parameter] = GradientSums()

    def add(self, lesson: Lesson) -> None:
        """Add a lesson; a module that is called often gives many, whose gradients are summed."""
        for parameter, grad in lesson.grads or ():
            self._grads.add(parameter, grad)
        self._lessons.append(lesson._replace(grads=None))

    def lessons(self) -> list[Lesson]:
        """Return all lessons; the last one holds the summed gradients."""
        return [*self._lessons, Lesson(self._grads.take())] if self._lessons else []
