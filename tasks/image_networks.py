"""Convolutional networks for colour images of 32 x 32 pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn, Tensor

_POOL = 0  # stands for a pooling layer in a list of widths
_CNN_WIDTHS = (32, _POOL, 64, _POOL, 64, _POOL)
# Those of VGG11 divided by two, so that a CPU can train it; the last pooling is left out, because
# the images are small.
_VGG_WIDTHS = (32, _POOL, 64, _POOL, 128, 128, _POOL, 256, 256, _POOL, 256, 256)
_RESNET_WIDTHS = (16, 16, 32, 32, 64, 64)


def _plain(widths: tuple[int, ...], size: int, classes: int) -> nn.Sequential:
    """Build layers of [convolution, BatchNorm, ReLU] with pooling, and a linear layer.

    Args:
        widths: Number of channels of each convolution; 0 stands for a pooling layer.
        size: Height and width of the last activation.
        classes: Number of classes.
    """
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        if width == _POOL:
            layers.append(nn.MaxPool2d(2))
            continue
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    head = nn.Linear(channels * size * size, classes)
    return nn.Sequential(*layers, nn.Flatten(), head)


def cnn(classes: int) -> nn.Sequential:
    """Build three times [convolution, BatchNorm, ReLU, pooling], and a linear layer."""
    return _plain(_CNN_WIDTHS, 4, classes)


def vgg(classes: int) -> nn.Sequential:
    """Build the eight convolutions of VGG11 at half their widths, and a linear layer."""
    return _plain(_VGG_WIDTHS, 2, classes)


class Block(nn.Module):
    """A basic block of a residual network: two convolutions, and a connection around them.

    Args:
        in_channels: Number of channels of the input.
        out_channels: Number of channels of the output. If it differs, the block halves height and
            width, and a 1 x 1 convolution on the connection does the same.

    Source: He et al. 2016, arXiv 1512.03385, section 3.3.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        grows = in_channels != out_channels
        stride = 2 if grows else 1
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if grows:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.activation = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(batch, in_channels, height, width)`` to the output's channels."""
        output: Tensor = self.activation(self.layers(input) + self.shortcut(input))
        return output


def resnet(classes: int) -> nn.Sequential:
    """Build a convolution (``stem``), ``block1`` to ``block6``, global pooling, a linear layer."""
    width = _RESNET_WIDTHS[0]
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    modules["stem"] = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )
    for number, out_channels in enumerate(_RESNET_WIDTHS, 1):
        modules[f"block{number}"] = Block(width, out_channels)
        width = out_channels
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    modules["head"] = nn.Linear(width, classes)
    return nn.Sequential(modules)


class ImageNetwork(NamedTuple):
    """A network for images.

    Attributes:
        build: Builds it for a number of classes.
        layers: Argument ``layers`` of ``DNI``, which places the cuts.
    """

    build: Callable[[int], nn.Sequential]
    layers: Any


NETWORKS = {
    "cnn": ImageNetwork(cnn, None),
    # Cuts inside a block would not separate it, because of the connection around its layers.
    "resnet": ImageNetwork(
        resnet, ["stem", *(f"block{number}" for number in range(1, len(_RESNET_WIDTHS) + 1))]
    ),
    "vgg": ImageNetwork(vgg, None),
}
