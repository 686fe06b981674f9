"""How the synthetic gradient of the future is used."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DNIError

TARGETS = ("bootstrap", "returns", "traces")


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
        target: What the synthesizer learns. ``"bootstrap"``: what one window sends back, with the
            prediction that it was sent. ``"returns"``: the lambda-return over ``windows`` windows,
            each run once more to see how gradients get through it; lessons come at the end of each
            such block. ``"traces"``: accumulate BP(lambda), for perceptrons without normalisation
            (``dni_params={"norm": None}``): eligibility traces carry the error of each window to
            the predictions at earlier states, without keeping those windows. Both run the network
            again, and are had by the wrapper, where it is cut in time alone.
        windows: How many windows a lambda-return reaches over.
        lambda_: From 0, the bootstrap, to 1: what comes from further windows is taken as it is.
        auxiliary: Weight of the auxiliary task: to predict, from the state that a window begins
            with, the synthetic gradient at its end. Its gradient by that state adds to the
            synthesizer's target, in units of true gradients.

    Raises:
        DNIError: A number is out of range.

    Source: Jaderberg et al. 2017, section 3.1 (auxiliary task); Pemberton and Costa 2024 (lambda).
    """

    factor: float = 0.1
    bound: float | None = 1.0
    probe: int = 16
    guard: bool = True
    target: str = "bootstrap"
    windows: int = 4
    lambda_: float = 0.9
    auxiliary: float = 0.0

    def __post_init__(self) -> None:
        if self.factor < 0 or (self.bound is not None and self.bound <= 0):
            raise DNIError(
                f"factor must not be negative and bound must be above 0, got {self.factor} and "
                f"{self.bound}"
            )
        if self.probe < 2:
            raise DNIError(f"probe must be at least 2, got {self.probe}")
        if self.target not in TARGETS:
            raise DNIError(f"target must be one of {', '.join(TARGETS)}, not {self.target!r}")
        if self.windows < 1 or not 0 <= self.lambda_ <= 1 or self.auxiliary < 0:
            raise DNIError(
                "windows must be at least 1, lambda_ from 0 to 1 and auxiliary not negative, got "
                f"{self.windows}, {self.lambda_} and {self.auxiliary}"
            )
