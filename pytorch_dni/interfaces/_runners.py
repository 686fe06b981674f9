"""The choice of the runner for a synthesizer."""

from __future__ import annotations

from torch import nn

from ..errors import SynthesizerError
from ..synthesizers import DNI_Network
from ._network_runner import FeedbackRunner, NetworkRunner
from ._runner import ModuleRunner, Runner


def check_synthesizer(synthesizer: object, owner: str) -> None:
    """Raise :class:`SynthesizerError` where a synthesizer is no module."""
    if not isinstance(synthesizer, nn.Module):
        raise SynthesizerError(
            f"{owner}: a synthesizer must be a module, not {type(synthesizer).__name__}"
        )


def runner(
    synthesizer: nn.Module, context_size: int | None, feature_dim: int, owner: str
) -> Runner:
    """Return the runner for a synthesizer's signature."""
    if isinstance(synthesizer, DNI_Network):
        if synthesizer.predicts == "feedback":
            return FeedbackRunner(synthesizer, context_size, feature_dim, owner)
        return NetworkRunner(synthesizer, context_size, feature_dim, owner)
    return ModuleRunner(synthesizer, context_size, feature_dim, owner)
