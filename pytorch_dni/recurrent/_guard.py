"""The guard: predictions that are worse than none are not used."""

from __future__ import annotations

import warnings

from .._moments import InterfaceStats

LOOK = 32  # lessons between two looks, which wait for the device
_OFF, _ON = 1.5, 1.0  # errors, over that of predicting zero, at which it turns
_ROUNDING = 0.01


class Guard:
    """Tells whether predictions are to be sent into windows.

    Args:
        owner: What messages call the interface.

    Attributes:
        injects: Whether they are.
    """

    def __init__(self, owner: str) -> None:
        self.injects = True
        self._owner = owner
        self._warned = False

    def look(self, stats: InterfaceStats) -> None:
        """Judge by how well the synthesizer predicts; warns the first time it says no."""
        # What overflowed makes figures that are no squares' and no cosine's.
        sound = -_ROUNDING < stats.loss <= _OFF and abs(stats.cosine) < 1 + _ROUNDING
        if self.injects and not sound:
            self.injects = False
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{self._owner}: the synthesizer's error is {stats.loss:.2f} times that of "
                    f"predicting zero (cosine {stats.cosine:.2f}, norm ratio "
                    f"{stats.norm_ratio:.2f}): nothing is sent into the windows until it is below "
                    "1. A lower grad_lr, a lower learning rate of the network, or a context help",
                    stacklevel=2,
                )
        elif not self.injects and sound and stats.loss < _ON:
            self.injects = True
