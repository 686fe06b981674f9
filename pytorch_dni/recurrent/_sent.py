"""What was sent into a window at its end."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sent(NamedTuple):
    """What was sent into a window.

    Attributes:
        factor: What predictions are multiplied by; 0 while nothing is to be sent.
        skip: Whether nothing was sent in so that the window can be measured.
        told: What the synthesizer told, ``(batch, features)``; None where nothing was sent in.
    """

    factor: float
    skip: bool
    told: Tensor | None = None

    @property
    def pure(self) -> bool:
        """Whether the gradients within the window are the window's own."""
        return self.skip or self.factor == 0


NOTHING = Sent(0.0, False)


def bounded(gradient: Tensor, longest: float | Tensor) -> Tensor:
    """A gradient, ``(batch, features)``, whose root mean square in each sample is at most that."""
    norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    share = longest * gradient.shape[1] ** 0.5 / norms.clamp_min(1e-37)
    kept: Tensor = gradient * share.clamp_max(1.0)
    return kept
