"""The error that synthesizers are given in a backward pass, and what is measured on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor

from .._backward_pass import call_after_backward_pass, current_backward_pass
from .._checks import check_tensor, check_whole
from .._normalization import RunningScale, Scalar, ScaleUpdate, sum_of_squares
from ..errors import DNIError
from ._decay import ActivationDecay
from ._pending import Change

#: Asks a synthesizer once, given the shape of the error, features last.
Trial = Callable[[Size], None]


class OutputError:
    """The error of one forward pass: the gradient of the loss at the output or at the last cut.

    It is known while a backward pass runs, as soon as that gradient has been computed. By hand,
    each forward pass has one of its own::

        error = OutputError()
        hidden = interface(self.first(input), error=error)
        return error.watch(self.second(hidden))
    """

    def __init__(self) -> None:
        self._value: Tensor | None = None
        # By type and device, the error and its sum of squares: all cuts ask for the same.
        self._known: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Scalar]] = {}
        self._shape: Size | None = None
        self._trials: list[Trial] = []

    @property
    def value(self) -> Tensor | None:
        """The error, features last; None where it is not known."""
        return self._value

    def watch(self, tensor: Tensor, feature_dim: int = -1) -> Tensor:
        """Take the gradient of a tensor for the error, when it comes; return the tensor.

        Args:
            tensor: The output, or another tensor near to it; a gradient is computed for it.
            feature_dim: Its dimension of features or channels.

        Raises:
            DNIError: It needs no gradient, or has no such dimension.
            SynthesizerError: The answer of a synthesizer that is given this error is wrong.
        """
        check_tensor("OutputError.watch(): the output", tensor)
        check_whole("feature_dim", feature_dim)
        if not tensor.requires_grad:
            raise DNIError(
                "OutputError.watch() takes the gradient of a tensor, but this one needs none: "
                "compute it from parameters that learn, outside of torch.no_grad()"
            )
        if not -tensor.dim() <= feature_dim < tensor.dim():
            raise DNIError(
                f"OutputError.watch(): a tensor of shape {tuple(tensor.shape)} has no dimension "
                f"feature_dim={feature_dim}"
            )
        self.expect_like(tensor, feature_dim)
        tensor.register_hook(partial(self.receive, feature_dim))
        return tensor

    def try_with(self, trial: Trial) -> None:
        """Call a function with the error's shape, features last, as soon as that is known."""
        shape = self._shape if self._value is None else self._value.shape
        if shape is None:
            self._trials.append(trial)
        else:
            trial(shape)

    def expect(self, shape: Size) -> None:
        """Note the shape that the error will have, features last, and make the trials."""
        self._shape = shape
        trials, self._trials = self._trials, []
        for trial in trials:
            trial(shape)

    def expect_like(self, tensor: Tensor, feature_dim: int) -> None:
        """Make the trials that wait, before the gradient of this tensor is taken."""
        if self._trials:
            self.expect(tensor.movedim(feature_dim, -1).shape)

    def receive(self, feature_dim: int, grad: Tensor | None) -> None:
        """Take a gradient for the error until the running backward pass ends."""
        if grad is None or not grad.is_floating_point():
            return
        self._value = grad if feature_dim == -1 else grad.movedim(feature_dim, -1)
        self._known = {}
        if current_backward_pass() is not None:
            call_after_backward_pass(self._forget)

    def _forget(self) -> None:
        self._value, self._known = None, {}

    def known(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Scalar]:
        """Return the error, which must be known, in a type and on a device, and its sum of squares.

        The parts of a network may lie on several devices, and the error lies on the last one's.
        """
        assert self._value is not None
        key = dtype, device
        if key not in self._known:
            value = self._value.to(device, dtype)
            self._known[key] = value, sum_of_squares(value)
        return self._known[key]


class ScaledError(NamedTuple):
    """An error and its running size, as a synthesizer is given them.

    Attributes:
        value: The error, features last.
        unit: The running root mean square, in which this error counts already: unlike the true
            gradient, it is known when the synthesizer predicts.
        update: The change of the running size, which is still to be applied.
        decay: Factor of the activation in the prediction, in units of the true gradient's size.
    """

    value: Tensor
    unit: Scalar
    update: ScaleUpdate
    decay: Scalar


class ErrorInput:
    """What an interface measures for a synthesizer that predicts from an error.

    Args:
        like: A tensor of the synthesizer's type and device.
        decays: Whether a multiple of the activation is added to the prediction.

    Attributes:
        scale: Running size of the error.
    """

    def __init__(self, like: Tensor, decays: bool) -> None:
        self.scale = RunningScale(like)
        self._decay = ActivationDecay(like) if decays else None

    def scaled(self, value: Tensor, square: Scalar | None = None) -> ScaledError:
        """Return an error with its running size; nothing changes.

        Args:
            value: The error, features last, in the synthesizer's type.
            square: Its sum of squares, where it is known already.
        """
        square = sum_of_squares(value) if square is None else square
        update = self.scale.preview_square(square, value.numel())
        return ScaledError(
            value, update.unit, update, 0.0 if self._decay is None else self._decay.value
        )

    def changes(
        self, error: ScaledError, activation: Tensor, residual: Tensor, scale: Scalar
    ) -> list[Change]:
        """Return what counts a lesson in.

        Args:
            error: The error of the prediction.
            activation: The activation.
            residual: Prediction minus target, over ``scale``.
            scale: Number that makes the residual normalised.
        """
        changes: list[Change] = [partial(self.scale.apply, error.update)]
        if self._decay is not None:
            sample = self._decay.measure(residual, scale, activation, error.decay)
            changes.append(partial(self._decay.apply, sample))
        return changes

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor."""
        self.scale.to(like)
        if self._decay is not None:
            self._decay.to(like)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data."""
        decay = None if self._decay is None else self._decay.state_dict()
        return {"scale": self.scale.state_dict(), "decay": decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.scale.load_state_dict(state["scale"])
        if self._decay is not None:
            self._decay.load_state_dict(state["decay"])
