"""The lessons of a running backward pass, and how to take back what it has measured."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .._gradients import GradientSums
from ._pending import Lesson, Undo


class Collected:
    """The lessons of a running backward pass.

    Args:
        steps: The learner's count of steps when the pass began.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._lessons: list[Lesson] = []
        self._grads: GradientSums[nn.Parameter] = GradientSums()
        self._undos: list[Undo] = []

    def add(self, lesson: Lesson, undos: Sequence[Undo]) -> None:
        """Add a lesson; a module that is called often gives many, whose gradients are summed.

        Args:
            lesson: The lesson.
            undos: Take back what was measured with it.
        """
        for parameter, grad in lesson.grads or ():
            self._grads.add(parameter, grad)
        self._lessons.append(lesson._replace(grads=None))
        self._undos += undos

    def lessons(self) -> list[Lesson]:
        """Return all lessons; the last one holds the summed gradients."""
        return [*self._lessons, Lesson(self._grads.take())] if self._lessons else []

    def take_back(self, steps: int) -> None:
        """Take back what a pass has measured that an exception ended.

        Args:
            steps: The learner's count of steps. Where others have learned since, what they measured
                was counted on top, and stays.
        """
        undos, self._undos = self._undos, []
        if steps == self._steps:
            for undo in reversed(undos):
                undo()
