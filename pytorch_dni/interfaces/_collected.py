"""What a running backward pass has taught so far."""

from __future__ import annotations

import threading

from torch import nn

from .._gradients import GradientSums
from ._pending import Lesson, PendingUpdate, Undo


class CollectedLessons:
    """The lessons of a running backward pass.

    The pass holds the only reference. Where it raises, this object goes with it, and takes back
    what its updates have changed: a pass that failed leaves no trace.

    Attributes:
        counts: Whether the pass is a step of the learner: it may have changes alone.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lessons: list[Lesson] = []
        self._grads: GradientSums[nn.Parameter] = GradientSums()
        self._undos: list[Undo] = []
        self.counts = False

    def __del__(self) -> None:
        while self._undos:
            self._undos.pop()()

    @property
    def elsewhere(self) -> bool:
        """Whether the pass began in another thread."""
        return threading.get_ident() != self._thread

    def add(self, update: PendingUpdate) -> None:
        """Apply an update, and add its lesson.

        A module that is called often gives many lessons, whose gradients are summed.
        """
        self.counts = True
        lesson, undos = update.apply_for_now()
        self._undos += undos
        for parameter, grad in lesson.grads or ():
            self._grads.add(parameter, grad)
        kept = lesson.output, lesson.error, lesson.square, lesson.again
        self._lessons.append(Lesson(None, *kept))

    def add_undo(self, undo: Undo) -> None:
        """Add what takes a change back."""
        self._undos.append(undo)

    def count(self) -> None:
        """Have the pass count as a step, also if it has no lesson."""
        self.counts = True

    def finish(self) -> list[Lesson]:
        """End the pass, and return all lessons; the last one holds the summed gradients."""
        self._undos = []
        return [*self._lessons, Lesson(self._grads.take())] if self._lessons else []
