"""A cut that a forward pass has reached under eager learning."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..context import Context
from ..cuts import InPlaceWatch, TriggerCopies, UpdatePolicy
from ..interfaces import BackwardInterface
from ..interfaces._autograd import detach_at_cut, in_same_memory
from ..interfaces._pass_learner import PassLearner
from ..interfaces._pending import PendingUpdate
from ..interfaces._prediction import Prediction
from ._closed import loss_inside


class EagerCut:
    """A cut that a forward pass has reached, until its synthesizer has learned.

    The graph holds it, so it must hold no node of the graph: memory would be freed late.

    Args:
        name: Name of the cut.
        interface: The interface at the cut.
        trigger: The activation, detached.
        context: The context of the forward pass.
        learner: Trains the synthesizer.
        policy: What passes the cut.
        copies: Learns whether the activation is changed in place.

    Attributes:
        needs_true: Whether the true gradient is to be computed; local losses seldom need it.
    """

    def __init__(
        self,
        name: str,
        interface: BackwardInterface,
        trigger: Tensor,
        context: Context | None,
        learner: PassLearner,
        policy: UpdatePolicy,
        copies: TriggerCopies,
    ) -> None:
        self.name = name
        self.interface = interface
        self.needs_true = True
        self._trigger: Tensor | None = trigger
        self._context = context
        self._learner = learner
        self._policy = policy
        self._copies = copies
        self._passed: InPlaceWatch | None = None
        self._prediction: Prediction | None = None
        self._predicted_at = 0  # the learner's count of steps
        # Not None: it learns in the backward pass, which this checks.
        self._check_delivered: Callable[[], None] | None = None

    def predict(self) -> Tensor:
        """Return the synthetic gradient; call under ``no_grad``."""
        assert self._trigger is not None
        self._prediction = self.interface.predict(self._trigger, self._context)
        self._predicted_at = self._learner.steps
        self.needs_true = self._prediction.needs_true()
        return self._prediction.message.to(self._trigger.dtype)

    def detach(self, activation: Tensor, anchor: Tensor) -> Tensor:
        """Return the activation without its history; it leads to ``anchor`` in the graph."""
        passed = detach_at_cut(activation.detach(), self, anchor)
        self._passed = InPlaceWatch(passed)
        return passed

    def forward_message(self, activation: Tensor) -> Tensor:
        """Return the activation in the same memory: the synthesizer may have saved it."""
        return in_same_memory(activation)

    def wait_for_backward(self, check_delivered: Callable[[], None]) -> None:
        """Learn in the backward pass: no further cut comes before the network's output.

        Args:
            check_delivered: Raises where that backward pass does not come from the output.
        """
        self._check_delivered = check_delivered

    def backward_message(self, grad: Tensor | None) -> None:
        """Learn from the gradient of the last part.

        Raises:
            DNIError: The loss is not computed from the network's output alone.
        """
        if self._check_delivered is None:
            # Parts that share parameters reach this in the forward pass, too.
            if self._passed is None and grad is not None:
                raise loss_inside(self.name)
            return
        self._check_delivered()
        with torch.no_grad():
            update = self.learn(grad)
            if update is None:
                self._learner.mark_step()
            else:
                self._learner.collect(update)

    def learn(self, true: Tensor | None, not_asked: bool = False) -> PendingUpdate | None:
        """Compute what the gradient that has come teaches, once; call under ``no_grad``.

        Args:
            true: The gradient; None where the part after the cut does not learn.
            not_asked: Whether that part learns, but its gradient was not asked for.

        Returns:
            The update; None where nothing is learned.
        """
        if self._passed is None:
            return None
        if self._passed.changed:
            self._copies.mark_changed([self.name])
        update = None
        if true is not None or self._policy.part_learns(self.name):
            update = self._update(true, not_asked)
        self._passed = self._trigger = self._prediction = None
        return update

    def _update(self, true: Tensor | None, not_asked: bool) -> PendingUpdate | None:
        # A synthesizer that has learned from another pass since must predict again: the tape or
        # the graph of its prediction belongs to other weights.
        if self._prediction is None or self._predicted_at != self._learner.steps:
            self.predict()
        assert self._prediction is not None
        if true is not None:
            return self.interface.learn(self._prediction, true)
        update = self._prediction.learn_without_true()
        if update is not None and not_asked:
            return update.also(partial(self.interface.moments.apply, None))
        return update
