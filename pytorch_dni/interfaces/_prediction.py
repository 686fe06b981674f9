"""One prediction of an interface: the synthetic message, and how the true one teaches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn, Tensor

from .._gradients import ParameterGrads
from .._normalization import RunningScale, Scalar, sum_of_squares
from .._statistics import RunningMoments
from ..synthesizers.base import Hidden
from ._error import ErrorInput, ScaledError
from ._modes import detached, synthesizer_mode
from ._pending import Change, Lesson, PendingUpdate
from ._run import Run

Ask = Callable[[], "Prediction"]


class Prediction(ABC):
    """A synthetic message, and how its synthesizer learns from the true one.

    Args:
        message: The synthetic message, detached.
        hidden: State of the synthesizer for its next call.
        ask: Asks the synthesizer for the same prediction again.
    """

    def __init__(self, message: Tensor, hidden: Hidden, ask: Ask) -> None:
        self.message = message
        self.hidden = hidden
        self._ask = ask

    @abstractmethod
    def learn(self, true: Tensor, valid_mask: Tensor | None = None) -> PendingUpdate:
        """Compute what the true message teaches; nothing changes yet.

        Args:
            true: The true message, of the synthetic one's shape and the synthesizer's type.
            valid_mask: Samples, ``(batch,)``, that count; None for all.
        """

    def learn_again(self, true: Tensor, valid_mask: Tensor | None = None) -> Lesson:
        """Compute the same lesson for a synthesizer that has learned since."""
        with synthesizer_mode(true.device.type):
            return self._ask()._lesson_again(true, valid_mask)

    @abstractmethod
    def _lesson_again(self, true: Tensor, valid_mask: Tensor | None) -> Lesson:
        """Compute the lesson of a message that has been counted before."""

    def needs_true(self) -> bool:
        """Return whether :meth:`learn` has a use for the true message in this step."""
        return True

    def learn_without_true(self) -> PendingUpdate | None:
        """Compute what is learned where no true message came; None for nothing."""
        return None


class FromError(NamedTuple):
    """What a prediction was made from, besides the trigger.

    Attributes:
        input: Measures errors and activations.
        error: The error.
        activation: The activation.
    """

    input: ErrorInput
    error: ScaledError
    activation: Tensor

    def changes(self, residual: Tensor, scale: Scalar) -> list[Change]:
        """Return what counts a lesson in, by the residual over ``scale``."""
        return self.input.changes(self.error, self.activation, residual, scale)


class RegressedMessage(Prediction):
    """The synthesizer's output is the message, in units of the true one's running size.

    Args:
        run: The call of the synthesizer.
        unit: Unit of its output: the scale of earlier steps, since the true message of this step
            may not have come yet.
        scale: Running size of the true message; None where targets are not normalised.
        moments: Running moments of the interface.
        ask: Asks the synthesizer for the same prediction again.
        own: Gradients of parameters that learn without the true message: a local head's.
        given: The error that the message was predicted from, if it was.
    """

    def __init__(
        self,
        run: Run,
        unit: Scalar,
        scale: RunningScale | None,
        moments: RunningMoments,
        ask: Ask,
        own: ParameterGrads | None = None,
        given: FromError | None = None,
    ) -> None:
        message = detached(run.output, run.output.dtype)
        if scale is not None and run.unit is not unit:
            message = message * unit
        super().__init__(message, run.hidden, ask)
        self._run = run
        self._unit = unit
        self._scale = scale
        self._moments = moments
        self._own = own
        self._given = given

    def learn(self, true: Tensor, valid_mask: Tensor | None = None) -> PendingUpdate:
        """Regress the output to the normalised true message, by the mean squared error."""
        weight = None if valid_mask is None else sample_weights(valid_mask, true)
        if weight is None:
            sample = self._moments.measure(self.message, true)
        else:
            sample = self._moments.measure(self.message * weight, true * weight)
        changes: list[Change] = [partial(self._moments.apply, sample)]
        new_unit: Scalar = 1.0
        square = None
        if self._scale is not None:
            update = self._scale.preview(true)
            changes.append(partial(self._scale.apply, update))
            new_unit, square = update.unit, update.square
        error, factor = self._error(true, weight, new_unit)
        if self._given is not None:
            changes += self._given.changes(error, factor * error.numel() / 2)
        return PendingUpdate(self._lesson(error, factor, square), *changes)

    def learn_without_true(self) -> PendingUpdate | None:
        """Learn what needs no true message: a local head from its own loss."""
        if self._own is None:
            return None
        return PendingUpdate(Lesson(self._own, square=_squares(self._own)))

    def _lesson_again(self, true: Tensor, valid_mask: Tensor | None) -> Lesson:
        weight = None if valid_mask is None else sample_weights(valid_mask, true)
        new_unit = 1.0 if self._scale is None else self._scale.value
        return self._lesson(*self._error(true, weight, new_unit), None)

    def _error(self, true: Tensor, weight: Tensor | None, new_unit: Scalar) -> tuple[Tensor, float]:
        """Return the gradient of the normalised prediction, divided by a factor, and the factor."""
        factor = 2 / max(true.numel(), 1)
        if self._scale is None:
            error = self.message - true
        elif isinstance(new_unit, Tensor):
            error = (self.message * (factor / self._unit)).addcdiv_(true, new_unit, value=-factor)
            factor = 1.0
        else:
            # One pass over the messages: the unit is divided out where the tensors are small.
            error = torch.sub(self.message, true, alpha=float(self._unit) / new_unit)
            factor /= float(self._unit)
        if weight is not None:
            error.mul_(weight)
        return error, factor

    def _lesson(self, error: Tensor, factor: float, square: Scalar | None) -> Lesson:
        own = self._own or []
        if own and square is not None:
            square = square + _squares(own)
        if self._run.taped is not None:
            grads = self._run.taped.backpropagate(error, factor)
            if square is not None and self._given is None:
                # An activation may overflow where its true gradient does not. The smallest
                # gradient shows it: everything behind it was computed from the same error.
                square = square + _squares([min(grads, key=_elements)])
            return Lesson([*own, *grads], square=square)
        output = self._run.output
        if not output.requires_grad:
            return Lesson(self._own, square=square)
        if square is not None:
            square = square + sum_of_squares(error)
        return Lesson(self._own, output, error.mul_(factor), square)


class LossGradient(Prediction):
    """The gradient of a local loss by the activation, rescaled to the size of the true one.

    The loss at the output may be scaled, or averaged otherwise: only the direction is local.

    Args:
        gradient: The gradient, times the gain.
        gain: Root mean square of true gradients over that of the local ones.
        moments: Running moments of the interface.
        grads: Gradients of the head's parameters.
        ask: Asks for the same prediction again.
    """

    def __init__(
        self,
        gradient: Tensor,
        gain: Tensor,
        moments: RunningMoments,
        grads: ParameterGrads,
        ask: Ask,
    ) -> None:
        super().__init__(gradient, None, ask)
        self._gain = gain
        self._moments = moments
        self._grads = grads

    def learn(self, true: Tensor, valid_mask: Tensor | None = None) -> PendingUpdate:
        """Learn from the local loss; the true gradient only tells how large it is."""
        sample = self._moments.measure(self.message, true, self._gain)
        return PendingUpdate(self._lesson(), partial(self._moments.apply, sample))

    def _lesson_again(self, true: Tensor, valid_mask: Tensor | None) -> Lesson:
        return self._lesson()

    def needs_true(self) -> bool:
        """Return whether this step is measured: the lesson itself needs no true gradient."""
        return self._moments.due or self._moments.measures_examples

    def learn_without_true(self) -> PendingUpdate:
        """Learn from the local loss alone."""
        return PendingUpdate(self._lesson())

    def _lesson(self) -> Lesson:
        return Lesson(self._grads, square=_squares(self._grads))


class ReturnGradient(Prediction):
    """The gradient of a critic's prediction, which learns from losses, not from gradients.

    Args:
        gradient: The gradient.
        moments: Running moments of the interface.
        ask: Asks for the same prediction again.
    """

    def __init__(self, gradient: Tensor, moments: RunningMoments, ask: Ask) -> None:
        super().__init__(gradient, None, ask)
        self._moments = moments

    def learn(self, true: Tensor, valid_mask: Tensor | None = None) -> PendingUpdate:
        """Measure the gradient; there is nothing to learn from it."""
        weight = 1.0 if valid_mask is None else sample_weights(valid_mask, true)
        sample = self._moments.measure(self.message * weight, true * weight)
        return PendingUpdate(Lesson(), partial(self._moments.apply, sample))

    def _lesson_again(self, true: Tensor, valid_mask: Tensor | None) -> Lesson:
        return Lesson()


def _elements(grad: tuple[nn.Parameter, Tensor]) -> int:
    return grad[1].numel()


def _squares(grads: ParameterGrads) -> Scalar:
    """Return the sum of squares of a head's gradients.

    It is not finite where an activation overflowed, which would spoil the head for good.
    """
    squares = [sum_of_squares(grad) for _, grad in grads if grad.layout == torch.strided]
    return sum(squares, 0.0)


def sample_weights(valid_mask: Tensor, like: Tensor) -> Tensor:
    """Return weights that make a mean over all samples one over the valid samples.

    Args:
        valid_mask: Samples, ``(batch,)``, that count.
        like: A message, which gives the type and the number of dimensions.
    """
    valid = valid_mask.to(like.dtype)
    weight = valid * (len(valid) / valid.sum().clamp_min(1))
    return weight.view(-1, *[1] * (like.dim() - 1))
