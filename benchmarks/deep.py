"""Deep networks of equal blocks, and the ways to train them that are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint_sequential

from pytorch_dni import DNI, LocalLoss_DNI, synthesizer_context

_CLASSES = 10
Step = Callable[[], None]


class Residual(nn.Module):
    """Adds to its input what its layers make of it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.layers(x)


class Deep(nn.Module):
    """A stem, equal blocks, and a head on the mean over positions."""

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.Sequential(*blocks)
        self.head = nn.Linear(width, _CLASSES)
        self.segments = 0  # for checkpointing

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        if self.segments:
            x = checkpoint_sequential(self.blocks, self.segments, x, use_reentrant=False)
        else:
            x = self.blocks(x)
        if x.dim() == 4:
            x = x.mean((2, 3))
        elif x.dim() == 3:
            x = x.mean(1)
        return self.head(x)


class Kind(NamedTuple):
    """A kind of network.

    Attributes:
        build: From the number of blocks.
        input: Of a batch.
        hidden: Width of its synthesizers.
    """

    build: Callable[[int], Deep]
    input: tuple[int, ...]
    hidden: int


def mlp(width: int, batch: int, hidden: int) -> Kind:
    """Residual blocks of two linear layers behind a layer norm."""

    def block() -> nn.Module:
        wide, narrow = nn.Linear(width, width), nn.Linear(width, width)
        return Residual(nn.LayerNorm(width), wide, nn.ReLU(), narrow)

    def build(depth: int) -> Deep:
        return Deep(nn.Linear(width, width), [block() for _ in range(depth)], width)

    return Kind(build, (batch, width), hidden)


def _cnn(depth: int, width: int = 32) -> Deep:
    def conv() -> nn.Module:
        return nn.Conv2d(width, width, 3, padding=1, bias=False)

    blocks: list[nn.Module] = [
        Residual(conv(), nn.BatchNorm2d(width), nn.ReLU(), conv(), nn.BatchNorm2d(width))
        for _ in range(depth)
    ]
    return Deep(nn.Conv2d(3, width, 3, padding=1), blocks, width)


def _transformer(depth: int, width: int = 128) -> Deep:
    blocks: list[nn.Module] = [
        nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        for _ in range(depth)
    ]
    return Deep(nn.Linear(16, width), blocks, width)


KINDS = {
    "MLP, width 512, batch 256": mlp(512, 256, 64),
    "CNN, 32 channels, 16 x 16, batch 32": Kind(_cnn, (32, 3, 16, 16), 16),
    "transformer, width 128, 32 positions, batch 16": Kind(_transformer, (16, 32, 16), 32),
}
#: Backpropagation, with as many checkpoints as the root of the depth and with one at each block;
#: synthetic gradients behind each block, the default way and eagerly; local losses, eagerly.
WAYS = ("backpropagation", "checkpoint, root", "checkpoint, each", "default", "eager", "local")


class Contestant(NamedTuple):
    """One way to train one network.

    Attributes:
        network: The network.
        step: A step of training.
        synthesizers: Parameters that train themselves.
        optimizers: Theirs and the network's.
    """

    network: nn.Module
    step: Step
    synthesizers: list[Tensor]
    optimizers: list[torch.optim.Optimizer]


def contestant(
    kind: Kind, depth: int, way: str, device: str, backend: str | None = None
) -> Contestant:
    """A network of that depth with its loop, ready to be stepped; compiled by a backend, if any."""
    torch.manual_seed(0)
    bare = kind.build(depth).to(device)
    x = torch.randn(kind.input, device=device)
    y = torch.randint(_CLASSES, (kind.input[0],), device=device)
    if way.startswith("checkpoint"):
        bare.segments = depth if way.endswith("each") else round(math.sqrt(depth))
    net: nn.Module = bare
    if way in ("default", "eager"):
        net = DNI(bare, layers="blocks.*", eager=way == "eager", hidden_size=kind.hidden)
    elif way == "local":
        net = DNI(
            bare, layers="blocks.*", eager=True, dni_network=LocalLoss_DNI, context_size=_CLASSES
        )
    if backend is not None:
        net.compile(backend=backend)
    optimizer = torch.optim.SGD(bare.parameters(), lr=1e-3)
    context = y if way == "local" else None

    def step() -> None:
        optimizer.zero_grad()
        with synthesizer_context(context):
            output = net(x)
        F.cross_entropy(output, y).backward()
        optimizer.step()

    # The first step places the cuts, the second sees that nothing changes activations in place.
    for _ in range(2):
        step()
    synthesizers: list[Tensor] = []
    optimizers: list[torch.optim.Optimizer] = [optimizer]
    if isinstance(net, DNI):
        for interface in net.interfaces.values():
            synthesizers += interface.synthesizer.parameters()
        own = net._rooms.learner.optimizer
        optimizers += [] if own is None else [own]
    return Contestant(bare, step, synthesizers, optimizers)
