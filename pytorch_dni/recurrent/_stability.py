"""What keeps bootstrapped gradients of the future stable: unit, bound and guard."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn, Tensor

from .._checkpoint import flag
from .._normalization import RunningScale, Scalar, ScaleUpdate, sum_of_squares
from .._statistics import InterfaceStats

GUARD_EVERY = 32  # lessons between two checks, which wait for the device
_OFF, _ON = 1.5, 1.0  # errors, over that of predicting zero, at which the guard switches
_ROUNDING = 0.01
_SMALLEST_NORM = 1e-37


class Injection(NamedTuple):
    """What is injected into a window at its last state.

    Attributes:
        factor: Factor of the prediction; 0 while nothing is to be injected.
        probes: Whether nothing is injected so that the window can be measured.
        predicted: The prediction, ``(batch, features)``; None where nothing was injected.
    """

    factor: float
    probes: bool
    predicted: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is injected: all gradients in the window are its own."""
        return self.probes or self.factor == 0


NO_INJECTION = Injection(0.0, False)


def bounded(gradient: Tensor, largest: Scalar) -> Tensor:
    """Scale a gradient, ``(batch, features)``, to a root mean square per sample of at most that."""
    norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    share = largest * gradient.shape[1] ** 0.5 / norms.clamp_min(_SMALLEST_NORM)
    kept: Tensor = gradient * share.clamp_max(1.0)
    return kept


class ProbeScale(RunningScale):
    """A running root mean square that only :meth:`measure` changes.

    When it changes, the synthesizer's last layer is rescaled, so that the prediction stays as it
    was (where that layer is known). Otherwise targets that depend on the synthesizer would drift.

    Args:
        like: A tensor of the synthesizer's type and device.
        synthesizer: The synthesizer.

    Source: van Hasselt et al. 2016, section 2: preserving outputs precisely.
    """

    def __init__(self, like: Tensor, synthesizer: nn.Module) -> None:
        super().__init__(like)
        layers = getattr(synthesizer, "layers", None)
        last = getattr(layers, "last", None)
        self._last: list[Tensor] = [] if last is None else [*last.parameters()]

    def preview(self, true: Tensor) -> ScaleUpdate:
        """Return an update that changes nothing: this gradient measures no window alone."""
        square, before = sum_of_squares(true), self._mean_square
        return ScaleUpdate(square, square / max(true.numel(), 1), before, before)

    def apply(self, update: ScaleUpdate) -> Callable[[], None]:
        """Change nothing; return what takes nothing back."""
        return nothing

    def measure(self, true: Tensor, valid_mask: Tensor | None = None) -> Callable[[], None]:
        """Count in a true gradient, ``(batch, features)``, of the samples that are valid.

        Returns:
            What takes it back.
        """
        before, known, undo = self.value, self.count > 0, self.keep()
        means = true.square().mean(1)
        if valid_mask is None:
            mean = means.mean()
        else:
            valid = valid_mask.to(true.dtype)
            mean = (means * valid).sum() / valid.sum()  # not a number where no sample is valid
        if self._on_cpu:
            if not mean.isfinite():
                return undo
            self.add(mean.item())
        else:
            old = self._mean_square
            self.add(torch.where(mean.isfinite(), mean, old))
        if not (known and self._last):
            return undo
        ratio, weights = before / self.value, [p.detach().clone() for p in self._last]
        with torch.no_grad():
            for parameter in self._last:
                parameter.mul_(ratio)
        return partial(self._restore_weights, weights, undo)

    @torch.no_grad()
    def _restore_weights(self, weights: Sequence[Tensor], undo: Callable[[], None]) -> None:
        undo()
        for parameter, before in zip(self._last, weights, strict=True):
            parameter.copy_(before)


class Guard:
    """Decides whether predictions are injected: not while they are worse than predicting zero.

    Args:
        owner: What warnings call the interface.

    Attributes:
        injects: Whether predictions are injected.
    """

    def __init__(self, owner: str) -> None:
        self.injects = True
        self._owner = owner
        self._warned = False

    def check(self, stats: InterfaceStats) -> Callable[[], None]:
        """Decide by how well the synthesizer predicts; warns at the first time it switches off.

        Returns:
            What takes the decision back.
        """
        undo = partial(self.load_state_dict, self.injects)
        # An overflow makes figures that cannot be those of squares and cosines.
        sound = -_ROUNDING < stats.loss <= _OFF and abs(stats.cosine) < 1 + _ROUNDING
        if self.injects and not sound:
            self.injects = False
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{self._owner}: the synthesizer's error is {stats.loss:.2f} times that of "
                    f"predicting zero (cosine {stats.cosine:.2f}, norm ratio "
                    f"{stats.norm_ratio:.2f}): nothing is injected into the windows until it is "
                    "below 1. A lower grad_lr, a lower learning rate of the network, or a context "
                    "help",
                    stacklevel=2,
                )
        elif not self.injects and sound and stats.loss < _ON:
            self.injects = True
        return undo

    def state_dict(self) -> bool:
        """Return the state as plain data."""
        return self.injects

    def load_state_dict(self, state: bool) -> None:
        """Continue from a saved state."""
        self.injects = flag(state)


def nothing() -> None:
    """Take nothing back."""
