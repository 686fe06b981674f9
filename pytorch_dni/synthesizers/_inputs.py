"""Synthesizers of activations from the network's input, whatever the two shapes."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn, Size, Tensor
from torch.nn import functional as F

from ._layers import zero_
from ._perceptron import Perceptron
from .basic import BasicSynthesizer

_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_NORMS = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def input_synthesizer(
    input: Size, output: Size, feature_dim: int, context_size: int | None, hidden_size: int | None
) -> nn.Module:
    """A synthesizer from inputs like ``input`` to activations like ``output``.

    Maps from maps by convolutions; sequences from sequences, and vectors from vectors, position by
    position; anything else from the whole sample at once.
    """
    if feature_dim == 1 and len(input) == len(output) and len(output) in _CONVOLUTIONS:
        hidden = max(16, output[1]) if hidden_size is None else hidden_size
        return MapSynthesizer(input, output, hidden, context_size)
    if feature_dim == -1 and input[:-1] == output[:-1]:
        hidden = max(32, output[-1]) if hidden_size is None else hidden_size
        return BasicSynthesizer(output[-1], 1, hidden, input[-1], context_size)
    hidden = max(32, output[feature_dim]) if hidden_size is None else hidden_size
    return SampleSynthesizer(input, output, hidden, context_size)


class SampleSynthesizer(BasicSynthesizer):
    """A perceptron from whole samples to whole samples.

    Shape:
        ``(batch, *input[1:])`` to ``(batch, *output[1:])``.
    """

    #: The trigger, and the context with it, comes as ``(batch, features)``.
    flatten_trigger: ClassVar[bool] = True

    def __init__(self, input: Size, output: Size, hidden: int, context_dim: int | None) -> None:
        super().__init__(math.prod(output[1:]), 1, hidden, math.prod(input[1:]), context_dim)
        self._shape = output[1:]

    def forward(self, trigger: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict an activation, in units of its running root mean square."""
        message: Tensor = super().forward(trigger, context).unflatten(-1, self._shape)
        return message

    def taped(self) -> Perceptron | None:
        """The perceptron, where its output needs no other shape."""
        return self.layers if len(self._shape) == 1 else None


class MapSynthesizer(nn.Module):
    """Convolutions from maps to maps, of whatever resolutions.

    Shape:
        ``(batch, channels, *places)`` to ``(batch, channels, *places)``.
    """

    #: Where the trigger has its channels, and is given the context.
    feature_dim: ClassVar[int] = 1

    def __init__(self, input: Size, output: Size, hidden: int, context_dim: int | None) -> None:
        super().__init__()
        self.context_dim = context_dim
        self._shrink = [after / before for before, after in zip(input[2:], output[2:], strict=True)]
        convolution, norm = _CONVOLUTIONS[len(input)], _NORMS[len(input)]
        self.before = nn.Sequential(
            convolution(input[1] + (context_dim or 0), hidden, 3, padding="same", bias=False),
            norm(hidden, track_running_stats=False),
            nn.ReLU(),
        )
        self.after = convolution(hidden, output[1], 3, padding="same")
        zero_(self.after)

    def forward(self, trigger: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict a map, in units of its running root mean square."""
        given = trigger if context is None else torch.cat([trigger, context], 1)
        hidden = self.before(given)
        places = [round(n * s) for n, s in zip(hidden.shape[2:], self._shrink, strict=True)]
        if [*hidden.shape[2:]] != places:
            hidden = F.interpolate(hidden, places, mode="area")
        return self.after(hidden)  # type: ignore[no-any-return]
