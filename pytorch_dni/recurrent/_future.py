"""How the synthetic gradient of the future is used."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DNIError


@dataclass(frozen=True)
class Future:
    """How the synthetic gradient of the future is used.

    Args:
        factor: What it is multiplied by before it goes into a window; 0 is truncated
            backpropagation through time. Jaderberg et al. 2017 take 0.1.
        bound: How many times as long as the true gradient within a window, by its running root
            mean square, it may be in a sample; None for no bound.
        probe: In one of so many windows nothing is sent in, so that the gradient within a window
            is seen alone: its size is the unit of the synthesizer. (Measured with what was sent
            in, the unit would be fed by the synthesizer itself, and may grow without limit.)
        guard: Send nothing in while the synthesizer's error is above that of predicting zero by
            half, until it is below.

    Raises:
        DNIError: A number is out of range.
    """

    factor: float = 0.1
    bound: float | None = 1.0
    probe: int = 16
    guard: bool = True

    def __post_init__(self) -> None:
        if self.factor < 0 or (self.bound is not None and self.bound <= 0):
            raise DNIError(
                f"factor must not be negative and bound must be above 0, got {self.factor} and "
                f"{self.bound}"
            )
        if self.probe < 2:
            raise DNIError(f"probe must be at least 2, got {self.probe}")
