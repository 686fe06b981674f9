"""The part of a gradient that pulls its activation towards zero, which no error explains."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._checkpoint import mean_square, number, real
from .._normalization import Scalar
from ._pending import Undo

# Of the running means, for each update. The coefficient has to follow within a few updates: with
# SGD (4 x 200, learning rate 0.05, momentum 0.9) activations grow tenfold within 20 of them. The
# mean of eighty diverged where that of two learned (training loss 0.16, backpropagation 0.16).
_DECAY = 0.5
# While synthesizers are untrained, true gradients are made of predictions that are no good yet, and
# the coefficient would stand for what the matrix is still to learn. From the 20th, 50th and 100th
# update on: losses 0.143, 0.143 and 0.144 (6 x 256, Adam 3e-4), and 0.17, 0.17 and 1.9 (with SGD).
_FIRST_USE = 50


class DecaySample(NamedTuple):
    """Mean products of one update.

    Attributes:
        product: Of activation and the part of the target that the error does not explain.
        square: Of the activation with itself.
    """

    product: Scalar
    square: Scalar


class ActivationDecay:
    """A running least-squares coefficient ``c`` of activations in gradients, never negative.

    A prediction that depends on the error alone leaves out how the gradient changes with the
    activation. The part that matters most is along the activation itself: it keeps activations
    from growing, and without it networks without normalisation diverge (MNIST, 4 x 220, Adam 3e-3:
    activations of 340 times their size after 360 steps at a cosine similarity of 0.9 to the exact
    gradient, 79 % test accuracy; with it 96.2 %). So ``c * h`` is added to the prediction, with
    ``c`` regressed to what the error leaves of the target. A negative ``c`` would let activations
    grow without bound, and counts as zero.

    Args:
        like: A tensor of the synthesizer's type and device.
    """

    def __init__(self, like: Tensor) -> None:
        self._on_cpu = like.device.type == "cpu"
        zero: Scalar = 0.0 if self._on_cpu else like.new_zeros(())
        self._product, self._square = zero, zero
        self._samples = 0
        self._updates = 0

    @property
    def value(self) -> Scalar:
        """The coefficient, in normalised units of the gradient; 0 until it can be relied on."""
        if self._updates < _FIRST_USE or not self._samples:
            return 0.0
        if isinstance(self._product, Tensor):
            assert isinstance(self._square, Tensor)
            return (self._product / self._square.clamp_min(1e-30)).clamp_min(0)
        return max(self._product / max(self._square, 1e-30), 0.0)

    def measure(
        self, residual: Tensor, scale: Scalar, activation: Tensor, used: Scalar
    ) -> DecaySample:
        """Measure one update, without counting it.

        Args:
            residual: Prediction minus target, over ``scale``.
            scale: Number that makes the residual normalised.
            activation: The activation, of the same shape.
            used: The coefficient in that prediction.
        """
        flat, other = activation.reshape(-1), residual.reshape(-1)
        number = max(flat.numel(), 1)
        square: Scalar = torch.dot(flat, flat) / number
        product: Scalar = torch.dot(flat, other) / number
        if self._on_cpu:
            square, product = float(square), float(product)
        return DecaySample(used * square - product * scale, square)

    def apply(self, sample: DecaySample) -> Undo:
        """Count an update in, and return what takes it back."""
        undo = partial(self._restore, self._product, self._square, self._samples, self._updates)
        self._updates += 1
        if self._on_cpu and not math.isfinite(sample.product + sample.square):
            return undo
        self._samples += 1
        weight = (1 - _DECAY) / (1 - _DECAY**self._samples)
        self._product = self._product + weight * (_finite(sample.product) - self._product)
        self._square = self._square + weight * (_finite(sample.square) - self._square)
        return undo

    def _restore(self, product: Scalar, square: Scalar, samples: int, updates: int) -> None:
        self._product, self._square = product, square
        self._samples, self._updates = samples, updates

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor."""
        self._on_cpu = like.device.type == "cpu"
        for name in ("_product", "_square"):
            number = float(getattr(self, name))
            setattr(self, name, number if self._on_cpu else like.new_full((), number))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "product": float(self._product),
            "square": float(self._square),
            "samples": self._samples,
            "updates": self._updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        like = self._product
        values = real(state["product"]), mean_square(state["square"])
        if isinstance(like, Tensor):
            self._product, self._square = (like.new_full((), value) for value in values)
        else:
            self._product, self._square = values
        self._samples, self._updates = number(state["samples"]), number(state["updates"])


def _finite(number: Scalar) -> Scalar:
    """Replace an overflow on a device, where asking for it would stall the queue."""
    return number.nan_to_num(0.0, 0.0, 0.0) if isinstance(number, Tensor) else number
