"""A learner, as one forward pass sees it."""

from __future__ import annotations

from ._learner import Learner
from ._pending import PendingUpdate


class PassLearner:
    """Passes the lessons of one forward pass on to a learner, unless a state has been loaded since.

    Args:
        learner: Trains the synthesizers.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._loads = learner.loads

    @property
    def steps(self) -> int:
        """How often the learner has learned."""
        return self._learner.steps

    def collect(self, update: PendingUpdate) -> None:
        """Apply an update now, and learn its lesson at the end of the running backward pass."""
        if self._counts():
            self._learner.collect(update)

    def mark_step(self) -> None:
        """Count the running backward pass as a step, also if it has no lesson."""
        if self._counts():
            self._learner.mark_step()

    def _counts(self) -> bool:
        return self._learner.loads == self._loads
