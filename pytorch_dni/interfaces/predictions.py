"""One prediction of an interface: the synthetic gradient now, the lesson when the truth comes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from .._moments import Moments, RunningScale
from ..synthesizers._perceptron import Perceptron, Tape


class Lesson(NamedTuple):
    """What a synthesizer learns from one true gradient.

    Attributes:
        output: Where backpropagation into the synthesizer starts; None where its parameters have
            their gradients already.
        error: The gradient it starts with.
        square: Sum of squares of the true gradient, not finite where that overflowed; None where
            nobody measured it.
    """

    output: Tensor | None = None
    error: Tensor | None = None
    square: float | Tensor | None = None


class Prediction(ABC):
    """A synthetic gradient, and how its synthesizer learns from the true one.

    Attributes:
        gradient: The synthetic gradient, of the activation's shape, cut from any graph.
    """

    gradient: Tensor

    @abstractmethod
    def learn(self, true: Tensor) -> Lesson:
        """Take in the true gradient, of the synthetic one's shape and the synthesizer's type."""


class RegressedGradient(Prediction):
    """The synthesizer's output is the gradient, in units of the true one's running size.

    ``taped`` is given where the output comes from a perceptron that ran without a graph.
    """

    def __init__(
        self,
        output: Tensor,
        scale: RunningScale | None,
        moments: Moments,
        taped: tuple[Perceptron, Tape] | None = None,
    ):
        self._output = output
        self._scale = scale
        self._moments = moments
        self._taped = taped
        # The scale of the steps before: the true gradient of this one is not there yet.
        units = output.detach()
        self.gradient = units if scale is None else units * scale.value

    def learn(self, true: Tensor) -> Lesson:
        """Towards the least mean squared error between output and normalised true gradient."""
        self._moments.update(self.gradient, true)
        slope = 2 / max(true.numel(), 1)
        if self._scale is None:
            square: float | Tensor | None = None
            error = torch.sub(self._output.detach(), true).mul_(slope)
        else:
            square = self._scale.update(true)
            error = self._output.detach() * slope
            scale = self._scale.value
            if isinstance(scale, Tensor):
                error.addcdiv_(true, scale, value=-slope)
            else:
                error.add_(true, alpha=-slope / scale)
        if self._taped is None:
            return Lesson(self._output, error, square)
        perceptron, tape = self._taped
        perceptron.backpropagate(tape, error)
        return Lesson(square=square)


class LossGradient(Prediction):
    """The gradient of a local loss by the activation, brought to the size of the true one.

    The loss at the end may be scaled, or averaged otherwise: only the direction is local.
    """

    def __init__(self, gradient: Tensor, gain: Tensor, moments: Moments):
        self.gradient = gradient
        self._gain = gain
        self._moments = moments

    def learn(self, true: Tensor) -> Lesson:
        """The parameters have the gradients of the local loss already."""
        self._moments.update(self.gradient, true, self._gain)
        # An activation that overflowed would spoil the head for good; the true gradient tells.
        flat = true.reshape(-1)
        square = torch.dot(flat, flat)
        return Lesson(square=square.item() if square.device.type == "cpu" else square)
