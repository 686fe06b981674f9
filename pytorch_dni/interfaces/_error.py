"""The error that synthesizers are given in a backward pass, and its running size."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .._normalization import RunningScale, Scalar, ScaleUpdate, sum_of_squares
from .._torch import call_after_backward_pass, current_backward_pass


class OutputError:
    """The error of one forward pass: the gradient of the loss at the output or at the last cut.

    It is known while a backward pass runs, as soon as that gradient has been computed.
    """

    def __init__(self) -> None:
        self._value: Tensor | None = None
        self._squares: dict[tuple[torch.dtype, torch.device], Scalar] = {}

    @property
    def value(self) -> Tensor | None:
        """The error, features last; None where it is not known."""
        return self._value

    def watch(self, tensor: Tensor, feature_dim: int) -> None:
        """Take the gradient of a tensor for the error, when it comes."""
        tensor.register_hook(partial(self.receive, feature_dim))

    def receive(self, feature_dim: int, grad: Tensor | None) -> None:
        """Take a gradient for the error until the running backward pass ends."""
        if grad is None or not grad.is_floating_point():
            return
        self._value = grad if feature_dim == -1 else grad.movedim(feature_dim, -1)
        self._squares = {}
        if current_backward_pass() is not None:
            call_after_backward_pass(self._forget)

    def _forget(self) -> None:
        self._value, self._squares = None, {}

    def scaled(self, scale: RunningScale, dtype: torch.dtype, device: torch.device) -> ScaledError:
        """Return the error in a type, with its running size; the error must be known.

        The parts of a network may lie on several devices, and the error lies on the last one's.
        """
        assert self._value is not None
        value = self._value.to(device, dtype)
        key = (dtype, device)
        if key not in self._squares:
            self._squares[key] = sum_of_squares(value)
        update = scale.preview_square(self._squares[key], value.numel())
        return ScaledError(value, update.unit, update)


class ScaledError(NamedTuple):
    """An error and its running size.

    Attributes:
        value: The error, features last.
        unit: The running root mean square, in which this error counts already: unlike the true
            gradient, it is known when the synthesizer predicts.
        update: The change of the running size, which is still to be applied.
    """

    value: Tensor
    unit: Scalar
    update: ScaleUpdate
