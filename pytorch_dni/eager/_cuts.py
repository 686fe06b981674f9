"""Eager learning: the cut method that computes a part's gradients as soon as it has run."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from .._objects import replace_differentiable
from .._tree import floating_tensors
from ..context import Context
from ..cuts import CutMethod, Interface, TriggerCopies, UpdatePolicy
from ..interfaces import BackwardInterface
from ..interfaces._learner import Learner
from ..interfaces._pass_learner import PassLearner
from ._pass import EagerPass


class EagerCuts(CutMethod):
    """Computes each part's gradients in the forward pass; the backward pass delivers them.

    Steps in which true gradients are mixed in go another way, since the true gradient is not known
    in the forward pass.

    Args:
        otherwise: The method for those steps.
        learner: Trains the synthesizers.
        policy: What passes each cut.
        copies: The cuts whose activation has to be copied.
    """

    detaches: ClassVar[bool] = True

    def __init__(
        self, otherwise: CutMethod, learner: Learner, policy: UpdatePolicy, copies: TriggerCopies
    ) -> None:
        self._otherwise = otherwise
        self._learner = learner
        self._policy = policy
        self._copies = copies
        self._delivered = False  # whether a backward pass has reached an output
        self._pass: EagerPass | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Graphs can be neither copied nor pickled.
        return {**self.__dict__, "_pass": None}

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a forward pass, eagerly where no true gradient is mixed in."""
        self._otherwise.begin(args, kwargs)
        self._pass = None
        if self._policy.current_lambda() == 0:
            inputs = floating_tensors((args, kwargs))
            learner = PassLearner(self._learner)
            # A later backward pass into a part that has learned is an error. PyTorch's own does not
            # name the cut; a hook on each node does, and takes time. So only the forward passes up
            # to the first backward pass that reaches the output have such hooks.
            closes = not self._delivered
            shared = (self._policy, self._copies)
            self._pass = EagerPass(inputs, learner, *shared, closes, self._note_delivery)

    def _note_delivery(self) -> None:
        self._delivered = True

    def pass_cut(
        self, name: str, interface: Interface, activation: Tensor, context: Context | None
    ) -> Tensor | None:
        """Compute the gradients of the part before the cut, and detach the activation.

        Raises:
            DNIError: The cut before does not separate the network.
        """
        running = self._pass
        if running is None:
            return self._otherwise.pass_cut(name, interface, activation, context)
        assert isinstance(interface, BackwardInterface)
        # A checkpointed part that runs again in between does not belong to this pass.
        self._pass = None
        copy = self._copies.needs_copy(name)
        self._copies.mark_seen(name)
        try:
            return running.pass_cut(name, interface, activation, context, copy)
        finally:
            self._pass = running

    def pass_source(self, activation: Tensor) -> Tensor | None:
        """Pass on as the other method does: eager synthesizers take no error."""
        return self._otherwise.pass_source(activation)

    def end(self, output: Any) -> Any:
        """Return the network's output, in whose backward pass the gradients are delivered.

        Raises:
            DNIError: A cut does not separate the network.
        """
        output = self._otherwise.end(output)
        running, self._pass = self._pass, None
        if running is None:
            return output
        return replace_differentiable(output, partial(running.end, type(output).__name__))

    def cancel(self) -> None:
        """Drop a forward pass that ended otherwise."""
        self._otherwise.cancel()
        self._pass = None
