"""What the synthesizers of states learn, by the name that users give."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ._future import Future
from ._horizon import Horizon
from ._lambda_returns import LambdaReturns
from ._traces import Traces
from .temporal import TemporalInterface


def horizon(
    future: Future, network: nn.Module, interfaces: Callable[[str], TemporalInterface]
) -> Horizon | None:
    """What reaches over several windows; None for the bootstrap, which one window teaches."""
    if future.target == "returns":
        return LambdaReturns(network, interfaces, future.windows, future.lambda_)
    if future.target == "traces":
        return Traces(network, interfaces, future.lambda_)
    return None
