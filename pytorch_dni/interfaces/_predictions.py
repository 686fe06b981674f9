"""One prediction of an interface: the message now, the lesson when the true one comes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn, Tensor

from .._moments import Moments, RunningScale, sum_of_squares
from ..synthesizers.base import Hidden
from ._runners import Run


class Lesson(NamedTuple):
    """What a synthesizer learns from one true message.

    Attributes:
        output: Where backpropagation into the synthesizer starts; None where its parameters have
            their gradients already.
        error: The gradient it starts with.
        square: Sum of squares of the true message, not finite where that overflowed; None where
            nobody measured it.
        again: Gives the same lesson to a synthesizer that has learned since.
    """

    output: Tensor | None = None
    error: Tensor | None = None
    square: float | Tensor | None = None
    again: Callable[[], Lesson] | None = None


class Prediction(ABC):
    """A synthetic message, and how its synthesizer learns from the true one.

    Attributes:
        message: The synthetic message, cut from any graph.
        hidden: The synthesizer's state, once it has learned from this prediction.
        renew: Gives the same prediction of a synthesizer that has learned since.
    """

    message: Tensor
    hidden: Hidden = None
    renew: Callable[[], Prediction]

    @abstractmethod
    def learn(self, true: Tensor, again: bool = False, counts: Tensor | None = None) -> Lesson:
        """Take in the true message, of the synthetic one's shape and the synthesizer's type.

        Args:
            true: The message.
            again: Whether it has been taken in before.
            counts: Samples, ``(batch,)``, that count; None for all.
        """

    def learn_alone(self) -> Lesson | None:
        """The lesson where no true message came, if there is one."""
        return None


class RegressedMessage(Prediction):
    """The synthesizer's output is the message, in units of the true one's running size."""

    def __init__(self, run: Run, scale: RunningScale | None, moments: Moments):
        self.hidden = run.hidden
        self._run = run
        self._scale = scale
        self._moments = moments
        # The scale of the steps before: the true message of this one may not be there yet.
        self._unit: float | Tensor = 1.0 if scale is None else scale.value
        units = run.output.detach()
        if scale is None:
            self.message = units
        elif run.taped is None:
            self.message = units * self._unit
        else:
            self.message = units.mul_(self._unit)  # nobody else has it

    def learn(self, true: Tensor, again: bool = False, counts: Tensor | None = None) -> Lesson:
        """Towards the least mean squared error between output and normalised true message."""
        weight = None if counts is None else weight_of(counts, true)
        if not again:
            if weight is None:
                self._moments.update(self.message, true)
            else:
                self._moments.update(self.message * weight, true * weight)
        slope = 2 / max(true.numel(), 1)
        if self._scale is None:
            square: float | Tensor | None = None
            error = torch.sub(self.message, true).mul_(slope)
        else:
            square = None if again else self._scale.update(true)
            error = self.message * (slope / self._unit)
            scale = self._scale.value
            if isinstance(scale, Tensor):
                error.addcdiv_(true, scale, value=-slope)
            else:
                error.add_(true, alpha=-slope / scale)
        if weight is not None:
            error.mul_(weight)
        if self._run.taped is not None:
            perceptron, tape = self._run.taped
            perceptron.backpropagate(tape, error)
            return Lesson(square=square)
        output = self._run.output
        return Lesson(output, error, square) if output.requires_grad else Lesson(square=square)


class LossGradient(Prediction):
    """The gradient of a local loss by the activation, brought to the size of the true one.

    The loss at the end may be scaled, or averaged otherwise: only the direction is local.
    """

    def __init__(
        self,
        gradient: Tensor,
        gain: Tensor,
        moments: Moments,
        grads: list[tuple[nn.Parameter, Tensor | None]],
    ):
        self.message = gradient
        self._gain = gain
        self._moments = moments
        self._grads = grads

    def learn(self, true: Tensor, again: bool = False, counts: Tensor | None = None) -> Lesson:
        """From the local loss; the true gradient says how large it is."""
        if again:
            return self.learn_alone()
        self._moments.update(self.message, true, self._gain)
        # An activation that overflowed would spoil the head for good; the true gradient tells.
        return self.learn_alone()._replace(square=sum_of_squares(true))

    def learn_alone(self) -> Lesson:
        """The local loss needs no true gradient to be learned from."""
        for parameter, grad in self._grads:
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        return Lesson()


class ReturnGradient(Prediction):
    """The gradient of a critic's prediction, which learns from losses, not from gradients."""

    def __init__(self, gradient: Tensor, moments: Moments):
        self.message = gradient
        self._moments = moments

    def learn(self, true: Tensor, again: bool = False, counts: Tensor | None = None) -> Lesson:
        """Only measured."""
        if not again:
            weight = 1.0 if counts is None else weight_of(counts, true)
            self._moments.update(self.message * weight, true * weight)
        return Lesson()


def weight_of(counts: Tensor, like: Tensor) -> Tensor:
    """Makes the mean over all samples one over those that count."""
    kept = counts.to(like.dtype)
    weight = kept * (len(kept) / kept.sum().clamp_min(1))
    return weight.view(-1, *[1] * (like.dim() - 1))
