"""The unit of a synthesizer: the running root mean square of the message that it predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._checkpoint import mean_square as read_mean_square
from ._checkpoint import number

DECAY = 0.99
_TINY = 1e-37  # under a mean square: prevents 0 / 0 while only zeros have come
SMALLEST_UNIT = _TINY**0.5

Scalar = float | Tensor


class ScaleUpdate(NamedTuple):
    """A running mean square once one more message counts in it.

    Attributes:
        square: Sum of squares of the message.
        mean_square: Mean square of the message.
        before: Running mean square before.
        after: Running mean square after.
    """

    square: Scalar
    mean_square: Scalar
    before: Scalar
    after: Scalar

    @property
    def unit(self) -> Scalar:
        """The root mean square after the update."""
        return (self.after + _TINY) ** 0.5


def sum_of_squares(tensor: Tensor) -> Scalar:
    """Return the sum of squares: a number on the CPU, elsewhere a tensor (it waits for nothing)."""
    flat = tensor.reshape(-1)
    square = torch.dot(flat, flat)
    return square.item() if square.device.type == "cpu" else square


class RunningScale:
    """A bias-corrected running root mean square of true messages.

    Regression targets are divided by it: true gradients are tiny (losses are means over the
    batch) and their size changes as training goes on, so that no learning rate fits raw targets.

    Args:
        like: A tensor of the synthesizer's type and device.
    """

    def __init__(self, like: Tensor) -> None:
        # On the CPU a Python number: a kernel for one element takes longer than all of this.
        # Elsewhere a tensor, since reading a number would stall the queue.
        self._on_cpu = like.device.type == "cpu"
        self._mean_square: Scalar = 0.0 if self._on_cpu else like.new_zeros(())
        self.count = 0

    @property
    def value(self) -> Scalar:
        """The root mean square so far; next to nothing at first."""
        return (self._mean_square + _TINY) ** 0.5

    def preview(self, true: Tensor) -> ScaleUpdate:
        """Compute the update of one more message, without applying it."""
        return self.preview_square(sum_of_squares(true), true.numel())

    def preview_square(self, square: Scalar, elements: int) -> ScaleUpdate:
        """Compute the update of a message of so many elements, by its sum of squares."""
        mean_square = square / max(elements, 1)
        return ScaleUpdate(square, mean_square, self._mean_square, self._after(mean_square))

    def apply(self, update: ScaleUpdate) -> Callable[[], None]:
        """Apply an update, also where others have been applied since it was computed.

        On the CPU, one that is not finite (loss scaling makes some on purpose) does not count.

        Returns:
            What takes it back.
        """
        before, undo = self._mean_square, self.keep()
        if isinstance(update.mean_square, Tensor) or math.isfinite(update.mean_square):
            unchanged = update.before is before
            self._mean_square = update.after if unchanged else self._after(update.mean_square)
            self.count += 1
        return undo

    def keep(self) -> Callable[[], None]:
        """Return what restores the size that is known now."""
        return partial(self._restore, self._mean_square, self.count)

    def _restore(self, mean_square: Scalar, count: int) -> None:
        self._mean_square, self.count = mean_square, count

    def add(self, mean_square: Scalar) -> None:
        """Count in one more message by its mean square."""
        self._mean_square = self._after(mean_square)
        self.count += 1

    def _after(self, mean_square: Scalar) -> Scalar:
        # This weight is the usual decay with Adam's bias correction folded in.
        weight = (1 - DECAY) / (1 - DECAY ** (self.count + 1))
        mean = _zero_if_not_finite(mean_square)
        return self._mean_square + weight * (mean - self._mean_square)

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor."""
        self._on_cpu = like.device.type == "cpu"
        number = float(self._mean_square)
        self._mean_square = number if self._on_cpu else like.new_full((), number)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {"mean_square": float(self._mean_square), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        saved, like = read_mean_square(state["mean_square"]), self._mean_square
        self.count = number(state["count"])
        self._mean_square = like.new_full((), saved) if isinstance(like, Tensor) else saved


def _zero_if_not_finite(number: Scalar) -> Scalar:
    """Replace an overflow, which loss scaling makes on purpose: it must not stay in a mean."""
    if isinstance(number, Tensor):
        return number.nan_to_num(0.0, 0.0, 0.0)
    return number if math.isfinite(number) else 0.0
