"""Targets that reach over several windows, which run once more for that; research."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...interfaces._learner import Learner
from .._module import StatefulModule
from .._target import Bootstrap
from ..future import FutureGradient
from ._lambda_returns import LambdaReturns
from ._traces import Traces


def make_target(
    future: FutureGradient,
    network: nn.Module,
    modules: Sequence[StatefulModule],
    learner: Learner,
) -> Bootstrap:
    """Return the target that ``future`` names, for synthesizers that the learner trains."""
    if future.target == "returns":
        return LambdaReturns(network, modules, learner, future.windows, future.lambda_)
    if future.target == "traces":
        return Traces(network, modules, learner, future.lambda_)
    return Bootstrap()
