"""Running second moments of synthetic and true gradients: the scale, and the statistics."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_DECAY = 0.99
_FLOOR = 1e-30  # keeps 0 / 0 away while only zeros have come


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


class Moments:
    """Bias-corrected running means of ``s * s``, ``s * t`` and ``t * t`` over elements.

    ``s`` is the synthetic gradient and ``t`` the true one. The root of the last is the scale that
    regression targets are divided by: true gradients are tiny (losses are means over the batch)
    and their size moves as training goes on, so that a fixed learning rate fits no raw target.
    """

    def __init__(self, like: Tensor) -> None:
        self.values = torch.zeros(3, dtype=like.dtype, device=like.device)
        self.count = 0

    def update(self, synthetic: Tensor, true: Tensor) -> Tensor:
        """Take in a pair of gradients of one shape; returns the true one's sum of squares."""
        s = synthetic.reshape(-1).to(self.values.dtype)
        t = true.reshape(-1).to(self.values.dtype)
        square = torch.dot(t, t)
        sums = torch.stack([torch.dot(s, s), torch.dot(s, t), square])
        # An overflow, as loss scaling makes on purpose, must not stay in a running mean.
        sums = sums.div_(max(t.numel(), 1)).nan_to_num_(0.0, 0.0, 0.0)
        self.count += 1
        # This weight is the usual decay with Adam's bias correction folded in.
        self.values.lerp_(sums, (1 - _DECAY) / (1 - _DECAY**self.count))
        return square

    def scale(self) -> Tensor:
        """Root mean square of the true gradient, a 0-dimensional tensor."""
        return self.values[2].sqrt().clamp_min_(_FLOOR)

    def ratio(self) -> Tensor:
        """Root mean square of the true gradient over that of the synthetic one."""
        synthetic, _, true = self.values.sqrt().unbind()
        return true / synthetic.clamp_min(_FLOOR)

    def stats(self, gain: float = 1.0) -> InterfaceStats:
        """The moments as figures a person can judge by; not a number before the first update.

        ``gain`` is what the synthetic gradient is multiplied by after it was taken in here.
        """
        ss, st, tt = self.values.double().tolist()
        ss, st = ss * gain**2, st * gain
        if not self.count or not tt:
            return InterfaceStats(math.nan, math.nan, math.nan, self.count)
        cosine = st / math.sqrt(ss * tt) if ss else 0.0
        return InterfaceStats((ss - 2 * st + tt) / tt, cosine, math.sqrt(ss / tt), self.count)

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor."""
        self.values = self.values.to(like.device, like.dtype)

    def state_dict(self) -> dict[str, Tensor | int]:
        """What :meth:`load_state_dict` takes up again."""
        return {"values": self.values, "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Go on from a saved state."""
        self.values.copy_(torch.as_tensor(state["values"]))
        self.count = int(state["count"])
