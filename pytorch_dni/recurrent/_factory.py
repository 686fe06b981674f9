"""Building the interfaces of states."""

from __future__ import annotations

from torch import nn, Tensor

from ..cuts import SynthesizerFactory
from ..cuts._factory import own_random_numbers
from ..synthesizers import Critic_DNI
from .critic import CriticInterface
from .future import FutureGradient
from .interface import TemporalInterface


class TemporalFactory:
    """Builds the interfaces of states from the wrapper's arguments.

    Args:
        synthesizers: Builds the synthesizers.
        future: How their predictions are used.
    """

    def __init__(self, synthesizers: SynthesizerFactory, future: FutureGradient) -> None:
        self._synthesizers = synthesizers
        self._future = future

    def build(
        self, name: str, module: nn.Module, state: Tensor, batch_dim: int
    ) -> TemporalInterface:
        """Build an interface.

        Args:
            name: Name of the interface.
            module: The stateful module.
            state: A state, ``(batch, features)``.
            batch_dim: Dimension of the samples in each tensor of the module's state.
        """
        with own_random_numbers(name):
            synthesizer = self._synthesizers.synthesizer(name, module, module, state, -1)
        options = self._synthesizers.options(name, synthesizer, state)
        kind = CriticInterface if isinstance(synthesizer, Critic_DNI) else TemporalInterface
        return kind(
            synthesizer.to(options["like"]).train(),
            future=self._future,
            batch_dim=batch_dim,
            feature_dim=-1,
            **options,
        )
