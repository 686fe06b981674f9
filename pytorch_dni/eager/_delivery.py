"""Gradients and lessons of a forward pass, kept until the backward pass delivers them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from .._gradients import GradientSums
from ..cuts._delivery_watch import not_from_output
from ..errors import DNIError
from ..interfaces._autograd import attach_gradients
from ..interfaces._pass_learner import PassLearner
from ..interfaces._pending import PendingUpdate


class GradientDelivery:
    """What the parts of one forward pass have computed, until the backward pass delivers it.

    Nothing has changed before: a forward pass that is never backpropagated leaves no trace.

    Args:
        learner: Trains the synthesizers.
        note: Called when a backward pass has reached the output.
    """

    def __init__(self, learner: PassLearner, note: Callable[[], None]) -> None:
        self._learner = learner
        self._note = note
        self._grads: GradientSums[Tensor] = GradientSums()
        self._updates: list[PendingUpdate] = []
        self._delivered = False

    def add_grads(self, leaves: Iterable[Tensor], grads: Iterable[Tensor | None]) -> None:
        """Add the gradients of a part; a parameter may be in several parts."""
        for leaf, grad in zip(leaves, grads, strict=True):
            if grad is not None:
                self._grads.add(leaf, grad)

    def add_update(self, update: PendingUpdate) -> None:
        """Add what a synthesizer learns."""
        self._updates.append(update)

    def check_delivered(self, name: str, kind: str) -> None:
        """Raise :class:`DNIError` where a backward pass came by another way than the output.

        Args:
            name: Name of the last cut, which the backward pass has reached.
            kind: Name of the output's class.
        """
        if not self._delivered:
            raise not_from_output("eager", name, kind)

    def attach(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the network's outputs, in whose backward pass everything is delivered."""
        return [*attach_gradients(outputs, self._grads.tensors(), self._deliver)]

    def _deliver(self, given: Sequence[Tensor | None]) -> list[Tensor]:
        """Apply the updates and return the gradients, once.

        Raises:
            DNIError: They have been delivered already.
        """
        if self._delivered:
            raise DNIError(
                "eager: the gradients of this forward pass have been delivered already: for "
                "several backward passes through one graph leave eager out"
            )
        self._delivered = True
        self._note()
        updates, self._updates = self._updates, []
        for update in updates:
            self._learner.collect(update)
        # Nobody else holds the gradients: they become the parameters' own, and are not copied.
        return [grad for _, grad in self._grads.take()]
