"""How well an interface predicts: running second moments of synthetic and true messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._checkpoint import number, tensor
from ._normalization import DECAY, Scalar, SMALLEST_UNIT

_EVERY = 8  # one update of so many is measured, after the first ones


class InterfaceStats(NamedTuple):
    """How well an interface predicts, over about the last hundred updates.

    Attributes:
        loss: Squared error of the synthetic gradient over the true gradient's mean square: 0 is
            perfect, 1 as bad as predicting zero.
        cosine: Cosine similarity of synthetic to true gradient.
        norm_ratio: Norm of the synthetic gradient over that of the true one.
        updates: How many times the synthesizer has been trained.
    """

    loss: float
    cosine: float
    norm_ratio: float
    updates: int

    @property
    def example_cosines(self) -> Tensor | None:
        """Cosine similarity for each example of the last lesson ``(batch,)``, if measured."""
        return None


class _ExampleStats(InterfaceStats):
    """The same, with what was measured of each example.

    Args:
        figures: The figures.
        cosines: Cosine similarities ``(batch,)``; None before the next lesson.
    """

    example_cosines: Tensor | None = None

    def __new__(cls, figures: InterfaceStats, cosines: Tensor | None) -> _ExampleStats:
        self = super().__new__(cls, *figures)
        self.example_cosines = cosines
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:  # for copies and pickles
        return InterfaceStats(*self), self.example_cosines


class RunningMoments:
    """Running means of ``s * s``, ``s * t`` and ``t * t`` over elements, sampled over updates.

    ``s`` is the synthetic message and ``t`` the true one. Every update is measured at first, then
    one of eight: reading two large tensors for figures that are seldom looked at is not free.

    Args:
        like: A tensor of the synthesizer's type and device.

    Attributes:
        values: The three means.
        ratio: Root mean square of the true message over that of the synthetic one.
        updates: How many updates there were.
        samples: How many of them were measured.
        measures_examples: Whether each example of each lesson is measured, too.
        example_cosines: What was measured last of examples.
    """

    def __init__(self, like: Tensor) -> None:
        self.values = like.new_zeros(3)
        self.ratio = like.new_ones(())
        self.updates = 0
        self.samples = 0
        self.measures_examples = False
        self.example_cosines: Tensor | None = None

    def measure_examples(self, measures: bool) -> None:
        """Measure each example of each lesson from now on, or stop it."""
        self.measures_examples, self.example_cosines = measures, None

    @property
    def due(self) -> bool:
        """Whether the next update will be measured."""
        return self.updates < _EVERY or (self.updates + 1) % _EVERY == 0

    def measure(self, synthetic: Tensor, true: Tensor, gain: Scalar | None = None) -> Tensor | None:
        """Measure a pair of messages of one shape, without counting it.

        Args:
            synthetic: The synthetic message.
            true: The true message.
            gain: Factor that the synthetic message holds and that is left out of the moments.

        Returns:
            The three means of this pair, for :meth:`apply`; None where the update is not due, or,
            on the CPU, where they are not finite: an overflow must not count.
        """
        if self.measures_examples:
            pair = synthetic.flatten(1), true.flatten(1)
            self.example_cosines = torch.cosine_similarity(*pair, dim=1, eps=SMALLEST_UNIT)
        if not self.due:
            return None
        s, t = synthetic.reshape(-1), true.reshape(-1)
        sums = torch.stack([torch.dot(s, s), torch.dot(s, t), torch.dot(t, t)])
        if gain is not None:
            sums[0] /= gain * gain
            sums[1] /= gain
        sums.div_(max(t.numel(), 1))
        if sums.device.type == "cpu":
            return sums if math.isfinite(sums.sum()) else None
        return sums.nan_to_num_(0.0, 0.0, 0.0)

    def apply(self, sample: Tensor | None) -> Callable[[], None]:
        """Count an update, and what was measured of it.

        Returns:
            What takes it back.
        """
        undo = partial(self._restore, self.values, self.ratio, self.updates, self.samples)
        self.updates += 1
        if sample is not None:
            self.samples += 1
            weight = max(1 / self.samples, 1 - DECAY**_EVERY)
            self.values = self.values.lerp(sample, weight)
            self._set_ratio()
        return undo

    def _restore(self, values: Tensor, ratio: Tensor, updates: int, samples: int) -> None:
        self.values, self.ratio, self.updates, self.samples = values, ratio, updates, samples

    def _set_ratio(self) -> None:
        synthetic, _, true = self.values.sqrt().unbind()
        self.ratio = true / synthetic.clamp_min(SMALLEST_UNIT)

    def stats(self, gain: float = 1.0) -> InterfaceStats:
        """Return the moments as figures a person can judge by; NaN before the first update.

        Args:
            gain: Factor of the synthetic message that the moments were measured without.
        """
        ss, st, tt = self.values.double().tolist()
        ss, st = ss * gain**2, st * gain
        figures = InterfaceStats(math.nan, math.nan, math.nan, self.updates)
        if tt:
            cosine = st / math.sqrt(ss * tt) if ss else 0.0
            loss, ratio = (ss - 2 * st + tt) / tt, math.sqrt(ss / tt)
            figures = InterfaceStats(loss, cosine, ratio, self.updates)
        return _ExampleStats(figures, self.example_cosines) if self.measures_examples else figures

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor."""
        self.values, self.ratio = self.values.to(like), self.ratio.to(like)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return {"values": self.values, "updates": self.updates, "samples": self.samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.values.copy_(tensor(state["values"], self.values.shape, self.values.dtype))
        self.updates, self.samples = number(state["updates"]), number(state["samples"])
        if self.samples:
            self._set_ratio()
