"""How the synthetic gradient of the future is used."""

from __future__ import annotations

from dataclasses import dataclass

from .._checks import check_choice, check_flag, check_number, check_whole
from ..errors import DNIError

TARGETS = ("bootstrap", "returns", "traces")


@dataclass(frozen=True)
class FutureGradient:
    """How the synthetic gradient of the future is used.

    Args:
        factor: Factor of the synthetic gradient before it is injected into a window; 0 is
            truncated backpropagation through time. Jaderberg et al. 2017 take 0.1.
        bound: Largest root mean square of the synthetic gradient in a sample, as a multiple of the
            running root mean square of true gradients within a window; None for no bound.
        probe: In one of so many windows nothing is injected, so that the gradient within a window
            can be measured alone: its size is the unit of the synthesizer. (Measured with what was
            injected, the unit would depend on the synthesizer itself, and could grow without
            limit.)
        guard: Inject nothing while the synthesizer's error is above 1.5 times that of predicting
            zero, until it is below it.
        target: What the synthesizer learns. ``"bootstrap"``: what one window sends back, with the
            prediction that was injected into it. ``"returns"``: the lambda-return over ``windows``
            windows, each of which runs once more to see how gradients pass through it; the
            synthesizer learns at the end of each such block. ``"traces"``: accumulate BP(lambda),
            for MLPs without normalisation (``dni_params={"norm": None}``): eligibility traces
            carry the error of each window to the predictions at earlier states, without keeping
            those windows. Both run the network again; they need the wrapper, and a network that is
            cut in time alone.
        windows: Number of windows of a lambda-return.
        lambda_: From 0, the bootstrap, to 1, the return without bootstrap.
        auxiliary: Weight of the auxiliary task: to predict, from the state that a window begins
            with, the synthetic gradient at its end. Its gradient by that state is added to the
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
        check_number("factor", self.factor, 0)
        if self.bound is not None:
            check_number("bound", self.bound, 0)
            if not self.bound:
                raise DNIError("bound must be above 0, got 0")
        check_whole("probe", self.probe, 2)
        check_flag("guard", self.guard)
        check_choice("target", self.target, TARGETS)
        check_whole("windows", self.windows, 1)
        check_number("lambda_", self.lambda_, 0, 1)
        check_number("auxiliary", self.auxiliary, 0)


def check_future(future: FutureGradient | None) -> FutureGradient:
    """Return the settings that the user gave, or the defaults for None.

    Raises:
        DNIError: They are of another kind.
    """
    if future is not None and not isinstance(future, FutureGradient):
        raise DNIError(f"future must be a FutureGradient or None, not {type(future).__name__}")
    return FutureGradient() if future is None else future
