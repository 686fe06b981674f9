"""Deep networks of equal blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn, Tensor
from torch.utils.checkpoint import checkpoint_sequential

CLASSES = 10


class Residual(nn.Module):
    """Layers whose output is added to their input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the input and the output of the layers."""
        return x + self.layers(x)


class DeepNetwork(nn.Module):
    """A first layer, equal blocks, and a linear layer on the mean over positions.

    Args:
        stem: The first layer.
        blocks: The blocks.
        width: Number of features, or channels, of the last block's output.
    """

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.Sequential(*blocks)
        self.head = nn.Linear(width, CLASSES)
        self._segments = 0

    def use_checkpoints(self, segments: int) -> None:
        """Keep activations only between segments of the blocks; recompute the others."""
        self._segments = segments

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(batch, classes)``."""
        x = self.stem(x)
        if self._segments:
            x = checkpoint_sequential(self.blocks, self._segments, x, use_reentrant=False)
        else:
            x = self.blocks(x)
        if x.dim() == 4:  # images (batch, channels, height, width)
            x = x.mean((2, 3))
        elif x.dim() == 3:  # sequences (batch, positions, features)
            x = x.mean(1)
        return self.head(x)


class NetworkType(NamedTuple):
    """A type of network that can have any number of blocks.

    Attributes:
        build: Builds a network from the number of blocks.
        input_shape: Shape of a batch.
        synthesizer_width: Width of the synthesizers.
    """

    build: Callable[[int], DeepNetwork]
    input_shape: tuple[int, ...]
    synthesizer_width: int


def mlp(width: int, batch: int, synthesizer_width: int) -> NetworkType:
    """Return a fully connected network; a block is a layer norm and two linear layers."""

    def build_block() -> nn.Module:
        first, second = nn.Linear(width, width), nn.Linear(width, width)
        return Residual(nn.LayerNorm(width), first, nn.ReLU(), second)

    def build(depth: int) -> DeepNetwork:
        stem = nn.Linear(width, width)
        return DeepNetwork(stem, [build_block() for _ in range(depth)], width)

    return NetworkType(build, (batch, width), synthesizer_width)


def _build_cnn(depth: int, width: int = 32) -> DeepNetwork:
    def convolution() -> nn.Module:
        return nn.Conv2d(width, width, 3, padding=1, bias=False)

    def build_block() -> nn.Module:
        first, second = convolution(), convolution()
        return Residual(first, nn.BatchNorm2d(width), nn.ReLU(), second, nn.BatchNorm2d(width))

    blocks = [build_block() for _ in range(depth)]
    return DeepNetwork(nn.Conv2d(3, width, 3, padding=1), blocks, width)


def _build_transformer(depth: int, width: int = 128) -> DeepNetwork:
    blocks: list[nn.Module] = [
        nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        for _ in range(depth)
    ]
    return DeepNetwork(nn.Linear(16, width), blocks, width)


NETWORK_TYPES = {
    "MLP, width 512, batch 256": mlp(512, 256, 64),
    "CNN, 32 channels, 16 x 16, batch 32": NetworkType(_build_cnn, (32, 3, 16, 16), 16),
    "transformer, width 128, 32 positions, batch 16": NetworkType(
        _build_transformer, (16, 32, 16), 32
    ),
}
