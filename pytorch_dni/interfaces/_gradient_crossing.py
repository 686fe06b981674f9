"""One passage of an activation and its gradient across a backward interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from ..context import Context
from ._error import OutputError


class CutPolicy(NamedTuple):
    """What passes a cut backward in one step.

    Attributes:
        bp_lambda: Share of the true gradient.
        part_learns: Whether the part before the cut learns; otherwise it gets no gradient.
    """

    bp_lambda: float = 0.0
    part_learns: bool = True


class Exchanges(Protocol):
    """A backward interface, as its crossings see it."""

    def exchange(
        self,
        trigger: Tensor,
        context: Context | None,
        true: Tensor | None,
        policy: CutPolicy,
        error: OutputError | None = None,
    ) -> Tensor | None:
        """Learn from the true gradient, and return what is passed back."""


class GradientCrossing:
    """Passes an activation on as it is, and a synthetic gradient back.

    Args:
        interface: The interface at the cut.
        trigger: The activation, detached.
        context: The context of the forward pass.
        current_policy: Called in the backward pass; returns what passes the cut.
        error: The error of the pass, if there is one.
    """

    def __init__(
        self,
        interface: Exchanges,
        trigger: Tensor,
        context: Context | None,
        current_policy: Callable[[], CutPolicy],
        error: OutputError | None = None,
    ) -> None:
        self._interface = interface
        self._trigger = trigger
        self._context = context
        self._current_policy = current_policy
        self._error = error

    def forward_message(self, activation: Tensor) -> Tensor:
        """Return a copy of the activation."""
        return activation.clone()

    def backward_message(self, grad: Tensor | None) -> Tensor | None:
        """Learn from the true gradient, and return the synthetic one."""
        policy = self._current_policy()
        return self._interface.exchange(self._trigger, self._context, grad, policy, self._error)
