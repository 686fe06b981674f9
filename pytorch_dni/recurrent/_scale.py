"""The unit of a synthesizer that bootstraps: the size of true gradients alone."""

from __future__ import annotations

import torch
from torch import nn, Tensor

from .._moments import RunningScale, sum_of_squares


class PureScale(RunningScale):
    """A running root mean square that only :meth:`measure` moves.

    When it moves, the synthesizer's last layer is rescaled, so that what it predicts stays (where
    that layer is known): targets that the synthesizer has a part in would drift otherwise.

    Source: van Hasselt et al. 2016, section 2: preserving outputs precisely.
    """

    def __init__(self, like: Tensor, synthesizer: nn.Module) -> None:
        super().__init__(like)
        layers = getattr(synthesizer, "layers", None)
        last = getattr(layers, "last", None)
        self._last: list[Tensor] = [] if last is None else [*last.parameters()]

    def update(self, true: Tensor) -> float | Tensor:
        """The sum of squares of a gradient that is no measure of size."""
        return sum_of_squares(true)

    def measure(self, true: Tensor, counts: Tensor | None = None) -> None:
        """Take in a true gradient, ``(batch, features)``, of the samples that count."""
        before, known = self.value, self.count > 0
        means = true.square().mean(1)
        if counts is None:
            mean = means.mean()
        else:
            kept = counts.to(true.dtype)
            mean = (means * kept).sum() / kept.sum()  # not a number where none counts
        if self._on_cpu:
            if not mean.isfinite():
                return
            self._take(mean.item())
        else:
            old = self._mean_square
            self._take(torch.where(mean.isfinite(), mean, old))
        if known and self._last:
            ratio = before / self.value
            with torch.no_grad():
                for parameter in self._last:
                    parameter.mul_(ratio)
