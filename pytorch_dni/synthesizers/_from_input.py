"""Synthesizers that predict activations from the network's input, for any pair of shapes."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn, Size, Tensor
from torch.nn import functional as F

from ._init import init_zero_
from ._mlp import MLP
from .basic import BasicSynthesizer

_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_NORMS = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def input_synthesizer(
    input: Size, output: Size, feature_dim: int, context_size: int | None, hidden_size: int | None
) -> nn.Module:
    """Build a synthesizer that predicts an activation from the network's input.

    Maps are predicted from maps by convolutions; sequences from sequences, and vectors from
    vectors, at each position; everything else from the whole sample at once.

    Args:
        input: Shape of the network's input.
        output: Shape of the activation.
        feature_dim: Feature dimension of the activation.
        context_size: Width of the context; None for no context.
        hidden_size: Width of the hidden layer; None takes the activation's, at least 16 or 32.
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
    """Predicts whole samples from whole samples by an MLP.

    Shape:
        ``(batch, *input[1:])`` to ``(batch, *output[1:])``.
    """

    #: Trigger and context are given as ``(batch, features)``.
    flatten_trigger: ClassVar[bool] = True

    def __init__(self, input: Size, output: Size, hidden: int, context_dim: int | None) -> None:
        super().__init__(math.prod(output[1:]), 1, hidden, math.prod(input[1:]), context_dim)
        self._shape = output[1:]

    def forward(self, trigger: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict an activation, in units of its running root mean square."""
        message: Tensor = super().forward(trigger, context).unflatten(-1, self._shape)
        return message

    def as_mlp(self) -> MLP | None:
        """Return the MLP, where its output needs no other shape."""
        return self.layers if len(self._shape) == 1 else None


class MapSynthesizer(nn.Module):
    """Predicts maps from maps of any resolutions by convolutions.

    Shape:
        ``(batch, channels, *places)`` to ``(batch, channels, *places)``.
    """

    #: Dimension of the trigger's channels, to which the context is joined.
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
        init_zero_(self.after)

    def forward(self, trigger: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict a map, in units of its running root mean square."""
        given = trigger if context is None else torch.cat([trigger, context], 1)
        hidden = self.before(given)
        resolution = [round(n * s) for n, s in zip(hidden.shape[2:], self._shrink, strict=True)]
        if [*hidden.shape[2:]] != resolution:
            hidden = F.interpolate(hidden, resolution, mode="area")
        return self.after(hidden)  # type: ignore[no-any-return]
