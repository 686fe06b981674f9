"""Architectures that users have, each with an input and a scalar loss."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Example(NamedTuple):
    build: Callable[[], nn.Module]
    input: Callable[[], torch.Tensor]
    loss: Callable[[object], torch.Tensor] = lambda output: output.square().mean()


def vectors(*shape):
    return lambda: torch.randn(*shape)


def tokens(*shape):
    return lambda: torch.randint(0, 11, shape)


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def relu_mlp(depth=3):
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(6, 6), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(6, 2))


def batchnorm_inplace():
    block = [nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True)]
    again = [nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True)]
    return nn.Sequential(*block, *again, nn.Linear(6, 2))


def dropout():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


class Functional(nn.Module):
    """Activations called as functions, one of them in place on a layer's output."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = F.relu_(self.first(x))
        return self.third(F.gelu(self.second(x)))


class Residual(nn.Module):
    """Additive skips, one of them in place, and one activation module used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.head(self.relu(y).mean((2, 3)))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 9, 3),
    )


def conv1d():
    return nn.Sequential(
        nn.Conv1d(3, 5, 3), nn.GELU(), nn.Conv1d(5, 4, 3), nn.Flatten(), nn.Linear(16, 2)
    )


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.first, self.second = kind(6, 7, batch_first=True), kind(7, 5, batch_first=True)
        self.head = nn.Linear(5, 11)

    def forward(self, x):
        return self.head(self.second(self.first(self.embedding(x))[0])[0])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(self.embedding(x)))


class Shared(nn.Module):
    """One module called three times, and weights tied between two layers."""

    def __init__(self):
        super().__init__()
        self.stem, self.loop, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.head.weight = self.stem.weight

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        for _ in range(3):
            x = torch.tanh(self.loop(x))
        return self.head(x)


class Branches(nn.Module):
    """Two heads, returned as a mapping; one layer that is never called."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.left, self.right, self.idle = nn.Linear(8, 2), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        x = self.body(x)
        return {"left": self.left(x), "right": self.right(x)}


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(checkpoint(self.body, self.stem(x), use_reentrant=False))


ZOO = {
    "mlp": Example(mlp, vectors(5, 6)),
    "batchnorm_inplace": Example(batchnorm_inplace, vectors(5, 6)),
    "dropout": Example(dropout, vectors(5, 6)),
    "functional": Example(Functional, vectors(5, 6)),
    "residual": Example(Residual, vectors(3, 2, 6, 6)),
    "cnn": Example(cnn, vectors(4, 1, 8, 8)),
    "conv1d": Example(conv1d, vectors(4, 3, 8)),
    "lstm": Example(Recurrent, tokens(4, 6)),
    "gru": Example(lambda: Recurrent(nn.GRU), tokens(4, 6)),
    "transformer": Example(Transformer, tokens(4, 6)),
    "shared": Example(Shared, vectors(5, 6)),
    "branches": Example(
        Branches,
        vectors(5, 6),
        lambda out: out["left"].square().mean() + out["right"].abs().mean(),
    ),
    "checkpointed": Example(Checkpointed, vectors(5, 6)),
}
