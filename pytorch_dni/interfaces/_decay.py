"""The part of a gradient that pulls its activation towards zero, which no error explains."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._checkpoint import number, real
from .._normalization import Scalar
from ._pending import Undo

# Weights of a new sample above and below the running coefficient. It has to rise within a few
# updates: with SGD (MNIST, 4 x 200, rate 0.05, momentum 0.9) activations grew tenfold in twenty,
# and a mean over eighty diverged. Losses after 350 steps with 0.3 and 0.1, 0.5 both ways, 0.2 both
# ways: 0.16, 0.16, 0.18; without momentum, at 0.2, 0.21, 0.22, 0.25; backpropagation 0.16, 0.19.
# On clusters in 64 dimensions, at 0.1 with momentum, the second and the third diverged. What
# rises faster than it falls is too large on average: 1000 steps of the copy task (Adam 3e-3) end at
# a loss of 0.10 with 0.3 and 0.1, and at 0.03 with 0.3 both ways.
_RISE, _FALL = 0.3, 0.1
# While synthesizers are untrained, true gradients are made of predictions that are no good yet, and
# the coefficient would stand for what the matrix is still to learn. From the 20th, 50th and 100th
# update on: losses 0.143, 0.143 and 0.144 (6 x 256, Adam 3e-4), and 0.17, 0.17 and 1.9 (that SGD).
_FIRST_USE = 50
_TINY = 1e-30


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
        self._coefficient: Scalar = 0.0 if self._on_cpu else like.new_zeros(())
        self._updates = 0

    @property
    def value(self) -> Scalar:
        """The coefficient, in normalised units of the gradient; 0 until it can be relied on."""
        if self._updates < _FIRST_USE:
            return 0.0
        if isinstance(self._coefficient, Tensor):
            return self._coefficient.clamp_min(0)
        return max(self._coefficient, 0.0)

    def measure(self, residual: Tensor, scale: Scalar, activation: Tensor, used: Scalar) -> Scalar:
        """Return the coefficient of one update, without counting it.

        Args:
            residual: Prediction minus target, over ``scale``.
            scale: Number that makes the residual normalised.
            activation: The activation, of the same shape.
            used: The coefficient in that prediction.
        """
        flat, other = activation.reshape(-1), residual.reshape(-1)
        square, product = torch.dot(flat, flat), torch.dot(flat, other)
        if self._on_cpu:
            return float(used) - float(product) * float(scale) / max(float(square), _TINY)
        return used - product * scale / square.clamp_min(_TINY)

    def apply(self, sample: Scalar) -> Undo:
        """Count an update in, and return what takes it back."""
        before = self._coefficient
        undo = partial(self._restore, before, self._updates)
        if isinstance(before, Tensor):
            # Asking for a number on a device would stall the queue.
            change = torch.as_tensor(sample - before).nan_to_num(0.0, 0.0, 0.0)
            weight = torch.where(change > 0, _RISE, _FALL) if self._updates else 1.0
            self._coefficient = before + weight * change
        elif math.isfinite(sample):
            weight = (_RISE if sample > before else _FALL) if self._updates else 1.0
            self._coefficient = before + weight * (float(sample) - before)
        self._updates += 1
        return undo

    def _restore(self, coefficient: Scalar, updates: int) -> None:
        self._coefficient, self._updates = coefficient, updates

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor."""
        self._on_cpu = like.device.type == "cpu"
        self._set(float(self._coefficient), like)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {"coefficient": float(self._coefficient), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        coefficient, updates = real(state["coefficient"]), number(state["updates"])
        if isinstance(self._coefficient, Tensor):
            self._set(coefficient, self._coefficient)
        else:
            self._coefficient = coefficient
        self._updates = updates

    def _set(self, coefficient: float, like: Tensor) -> None:
        self._coefficient = coefficient if self._on_cpu else like.new_full((), coefficient)
