"""The result of calling a synthesizer, with or without autograd's graph."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from .._gradients import ParameterGrads
from .._normalization import Scalar
from ..synthesizers.base import Hidden


class RunsByHand(Protocol):
    """A module whose backward pass is written by hand."""

    def backpropagate(
        self, tape: Any, error: Tensor, factor: float
    ) -> tuple[Tensor | None, ParameterGrads]:
        """Return the gradients of the input, which may be None, and of the parameters."""


class Taped(NamedTuple):
    """A call without a graph.

    Attributes:
        module: The module that ran.
        tape: The tape for its backward pass.
        feature_dim: Feature dimension of the message; the tape has features last.
    """

    module: RunsByHand
    tape: Any
    feature_dim: int

    def backpropagate(self, error: Tensor, factor: float) -> ParameterGrads:
        """Return the gradients of the parameters; ``factor * error`` is that of the message."""
        moved = error if self.feature_dim == -1 else error.movedim(self.feature_dim, -1)
        return self.module.backpropagate(self.tape, moved, factor)[1]


class Run(NamedTuple):
    """The result of one call of a synthesizer.

    Attributes:
        output: The prediction, in the synthesizer's graph unless there is a tape.
        hidden: The state for its next call, detached.
        taped: The same call without a graph; None where autograd recorded it.
        unit: Factor that the output has been multiplied by already.
    """

    output: Tensor
    hidden: Hidden = None
    taped: Taped | None = None
    unit: Scalar = 1.0
