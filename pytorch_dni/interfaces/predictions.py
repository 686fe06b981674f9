"""One prediction of an interface: the synthetic gradient now, the lesson when the truth comes."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import nn, Tensor

from .._moments import Moments


class Lesson(NamedTuple):
    """What a synthesizer learns from one true gradient.

    Attributes:
        output: Where backpropagation into the synthesizer starts; None where its parameters have
            their gradients already.
        error: The gradient it starts with.
        square: Sum of squares of the true gradient; not finite where that overflowed.
    """

    output: Tensor | None
    error: Tensor | None
    square: Tensor


class Prediction(ABC):
    """A synthetic gradient, and how its synthesizer learns from the true one.

    Attributes:
        gradient: The synthetic gradient, of the activation's shape, cut from any graph.
    """

    gradient: Tensor

    @abstractmethod
    def learn(self, true: Tensor) -> Lesson:
        """Take in the true gradient, of the synthetic one's shape."""


class RegressedGradient(Prediction):
    """The synthesizer's output is the gradient, in units of the true one's running size."""

    def __init__(self, output: Tensor, moments: Moments, normalize: bool, dtype: torch.dtype):
        self._output = output
        self._moments = moments
        self._normalize = normalize
        units = output.detach()
        if normalize:
            # Of the steps before this one: the true gradient of this one is not there yet.
            units = units * moments.scale()
        self.gradient = units.to(dtype)

    def learn(self, true: Tensor) -> Lesson:
        """Gradient of the mean squared error between output and normalised true gradient."""
        square = self._moments.update(self.gradient, true)
        target = true.to(self._output.dtype)
        if self._normalize:
            target = target / self._moments.scale()
        error = torch.sub(self._output.detach(), target).mul_(2 / max(target.numel(), 1))
        return Lesson(self._output, error, square)


class LossGradient(Prediction):
    """The gradient of a scalar loss with respect to the activation, brought to the true size."""

    def __init__(
        self,
        loss: Tensor,
        trigger: Tensor,
        parameters: list[nn.Parameter],
        moments: Moments,
        dtype: torch.dtype,
    ):
        raw, *grads = torch.autograd.grad(loss, [trigger, *parameters], allow_unused=True)
        self._moments = moments
        self._raw = torch.zeros_like(trigger) if raw is None else raw
        self._pairs = list(zip(parameters, grads, strict=True))
        # The loss at the end may be scaled or averaged otherwise: only the direction is local.
        self.gradient = (self._raw * moments.ratio() if moments.count else self._raw).to(dtype)

    def learn(self, true: Tensor) -> Lesson:
        """Hand the parameters the gradients of the local loss."""
        square = self._moments.update(self._raw, true)
        for parameter, grad in self._pairs:
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        return Lesson(None, None, square)
