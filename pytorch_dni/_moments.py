"""Running second moments of synthetic and true gradients: the scale, and the statistics."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

_DECAY = 0.99
_FLOOR = 1e-30  # keeps 0 / 0 away while only zeros have come
_EVERY = 8  # of so many updates one is measured for the statistics, after the first ones


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


class RunningScale:
    """Bias-corrected running root mean square of the true gradient.

    Regression targets are divided by it: true gradients are tiny (losses are means over the
    batch) and their size moves as training goes on, so that a fixed learning rate fits no raw
    target.
    """

    def __init__(self, like: Tensor) -> None:
        self.mean_square = like.new_zeros(())
        self.value = like.new_full((), _FLOOR)
        self.count = 0

    def update(self, true: Tensor) -> Tensor:
        """Take in a true gradient; returns its sum of squares."""
        flat = true.reshape(-1)
        square = torch.dot(flat, flat)
        # An overflow, as loss scaling makes on purpose, must not stay in a running mean.
        mean = (square / max(flat.numel(), 1)).nan_to_num_(0.0, 0.0, 0.0)
        self.count += 1
        # This weight is the usual decay with Adam's bias correction folded in.
        self.mean_square.lerp_(mean, (1 - _DECAY) / (1 - _DECAY**self.count))
        self.value = self.mean_square.sqrt().clamp_min_(_FLOOR)
        return square

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor."""
        self.mean_square, self.value = self.mean_square.to(like), self.value.to(like)

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes up again."""
        return {"mean_square": self.mean_square, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.mean_square.copy_(state["mean_square"])
        self.value = self.mean_square.sqrt().clamp_min_(_FLOOR)
        self.count = int(state["count"])


class Moments:
    """Running means of ``s * s``, ``s * t`` and ``t * t`` over elements, sampled over updates.

    ``s`` is the synthetic gradient and ``t`` the true one. Every update is measured at first, then
    one of eight: reading two large tensors for figures that are seldom looked at is not free.
    """

    def __init__(self, like: Tensor) -> None:
        self.values = like.new_zeros(3)
        self.ratio = like.new_ones(())  # of the true to the synthetic root mean square
        self.updates = 0
        self.samples = 0

    def update(self, synthetic: Tensor, true: Tensor) -> None:
        """Take in a pair of gradients of one shape."""
        self.updates += 1
        if self.updates > _EVERY and self.updates % _EVERY:
            return
        s, t = synthetic.reshape(-1), true.reshape(-1)
        sums = torch.stack([torch.dot(s, s), torch.dot(s, t), torch.dot(t, t)])
        self.samples += 1
        weight = max(1 / self.samples, 1 - _DECAY**_EVERY)
        self.values.lerp_(sums.div_(max(t.numel(), 1)).nan_to_num_(0.0, 0.0, 0.0), weight)
        self._set_ratio()

    def _set_ratio(self) -> None:
        synthetic, _, true = self.values.sqrt().unbind()
        self.ratio = true / synthetic.clamp_min(_FLOOR)

    def stats(self, gain: float = 1.0) -> InterfaceStats:
        """The moments as figures a person can judge by; not a number before the first update.

        ``gain`` is what the synthetic gradient is multiplied by after it was taken in here.
        """
        ss, st, tt = self.values.double().tolist()
        ss, st = ss * gain**2, st * gain
        if not tt:
            return InterfaceStats(math.nan, math.nan, math.nan, self.updates)
        cosine = st / math.sqrt(ss * tt) if ss else 0.0
        return InterfaceStats((ss - 2 * st + tt) / tt, cosine, math.sqrt(ss / tt), self.updates)

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor."""
        self.values, self.ratio = self.values.to(like), self.ratio.to(like)

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes up again."""
        return {"values": self.values, "updates": self.updates, "samples": self.samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.values.copy_(state["values"])
        self.updates, self.samples = int(state["updates"]), int(state["samples"])
        if self.samples:
            self._set_ratio()
