"""Networks with connections around their layers, each with an input and a scalar loss."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .wrapped import residual, ResidualBlock
from .zoo import Example, tokens, Transformer, vectors


class Basic(nn.Module):
    """A block of a ResNet: one ReLU module, run twice, and a connection that may have a layer."""

    def __init__(self, width, out):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.shortcut is None else self.shortcut(x)
        return self.relu(y)


class ResNet(nn.Module):
    """A chain of layers, stages of blocks, pooling and a head, as in torchvision."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.conv2, self.act = nn.Conv2d(4, 4, 3), nn.ReLU()
        self.layer1 = nn.Sequential(Basic(4, 4), Basic(4, 4))
        self.layer2 = nn.Sequential(Basic(4, 6), Basic(6, 6))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

    def forward(self, x):
        x = self.act(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(self.pool(self.layer2(self.layer1(x))).flatten(1))


class PreNorm(nn.Module):
    """A transformer whose blocks normalise their inputs, as in GPT-2."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places, self.drop = nn.Embedding(11, 8), nn.Embedding(6, 8), nn.Dropout(0)
        layers = [
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        ]
        self.blocks, self.norm = nn.ModuleList(layers), nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.drop(self.tokens(x) + self.places(torch.arange(x.shape[1])))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Functional(nn.Module):
    """A block whose activation functions are functions."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return F.relu(x + self.b(F.relu(self.a(x))))


class Dense(nn.Module):
    """A block of a DenseNet: each layer gets the outputs of all layers before."""

    def __init__(self, width, layers=2, growth=2):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(width + i * growth, growth, 3, padding=1))
            for i in range(layers)
        )

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def dense():
    stem = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
    step = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AvgPool2d(2))
    head = nn.Sequential(nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 3))
    return nn.Sequential(stem, Dense(4), step, Dense(4), head)


class UNet(nn.Module):
    """Connections around all inner layers, from the way down to the way up."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.low, self.up2, self.up1 = (
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU())
            for a, b in ((2, 4), (4, 4), (4, 4), (8, 4), (8, 4))
        )
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = F.interpolate(self.low(F.max_pool2d(second, 2)), scale_factor=2)
        x = F.interpolate(self.up2(torch.cat([second, x], 1)), scale_factor=2)
        return self.head(self.up1(torch.cat([first, x], 1)))


class Squeeze(nn.Module):
    """A residual block with a gate from two linear layers inside of its branch."""

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.b = nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8)

        def forward(self, x):
            return x * torch.sigmoid(self.b(self.act(self.a(x))))

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), self.Gate(), nn.Linear(8, 8))

    def forward(self, x):
        return x + self.inner(x)


class Conditioned(nn.Module):
    """Blocks that all get a condition, as in diffusion transformers."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.fc = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x, condition):
            return x + self.scale(condition) * self.fc(x).tanh()

    def __init__(self):
        super().__init__()
        self.stem, self.condition = nn.Linear(6, 8), nn.Linear(6, 8)
        self.blocks = nn.ModuleList(self.Block() for _ in range(2))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        hidden, condition = self.stem(x), self.condition(x)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.head(hidden)


class TwoOutputs(nn.Module):
    """An auxiliary output is made in the middle of residual blocks."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(6, 8), Squeeze(), Squeeze()
        self.auxiliary, self.head = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(self.stem(x))
        early = self.auxiliary(x)
        return self.head(self.second(x)), early


class EncoderDecoder(nn.Module):
    """All blocks of the decoder get the output of the encoder."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.body = nn.Transformer(8, 2, 2, 4, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.embedding(x)
        return self.head(self.body(x, x))


class Repeated(nn.Module):
    """One residual block that runs three times, as in ALBERT."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(6, 8), Functional(), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = self.block(x)
        return self.head(x)


class SharedActivation(nn.Module):
    """Residual branches without a module of their own, and one activation module behind both."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.head = (nn.Linear(8, 8) for _ in range(4))
        self.act = nn.ReLU()

    def forward(self, x):
        x = self.stem(x)
        x = self.act(x + self.a(x))
        return self.head(self.act(x + self.b(x)))


class Checkpoints(nn.Module):
    """Residual blocks that run under checkpoints."""

    def __init__(self, reentrant):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
        self.blocks = nn.ModuleList(Squeeze() for _ in range(2))
        self.reentrant = reentrant

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


def frozen_stem():
    network = nn.Sequential(nn.Linear(6, 8), Squeeze(), Squeeze(), nn.Linear(8, 2))
    network[0].requires_grad_(False)
    return network


def gated():
    return nn.Sequential(nn.Linear(6, 8), Squeeze(), nn.Linear(8, 2))


def functional():
    return nn.Sequential(nn.Linear(6, 8), Functional(), Functional(), nn.Linear(8, 2))


def activation_behind():
    body = nn.Sequential(ResidualBlock(8), nn.ReLU())
    return nn.Sequential(nn.Linear(6, 8), body, nn.Linear(8, 2))


def mixed():
    chain = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh()]
    head = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2))
    return nn.Sequential(*chain, nn.Sequential(Squeeze(), Squeeze()), head)


def recurrent_in_block():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lstm = nn.Linear(8, 8), nn.LSTM(8, 8, batch_first=True)

        def forward(self, x):
            return x + self.lstm(self.fc(x))[0]

    return nn.Sequential(nn.Linear(6, 8), Block(), Block(), nn.Linear(8, 2))


def both(out):
    return out[0].square().mean() + out[1].abs().mean()


#: Networks that have places at which no connection leads around a cut.
SEPARATED = {
    "resnet": Example(ResNet, vectors(3, 2, 8, 8)),
    "pre-norm": Example(PreNorm, tokens(4, 6)),
    "post-norm": Example(Transformer, tokens(4, 6)),
    "nested": Example(lambda: residual(3), vectors(5, 4)),
    "functional": Example(functional, vectors(5, 6)),
    "activation behind": Example(activation_behind, vectors(5, 6)),
    "dense": Example(dense, vectors(3, 2, 6, 6)),
    "gated": Example(gated, vectors(5, 6)),
    "mixed": Example(mixed, vectors(5, 6)),
    "repeated": Example(Repeated, vectors(5, 6)),
    "checkpoints": Example(lambda: Checkpoints(False), vectors(5, 6)),
    "recurrent": Example(recurrent_in_block, vectors(5, 3, 6)),
}
#: Networks in which connections lead around all places inside of a part.
CONNECTED = {
    "u-net": Example(UNet, vectors(2, 2, 8, 8)),
    "encoder and decoder": Example(EncoderDecoder, tokens(4, 6)),
    "conditioned": Example(Conditioned, vectors(5, 6)),
    "two outputs": Example(TwoOutputs, vectors(5, 6), both),
    "shared activation": Example(SharedActivation, vectors(5, 8)),
    "reentrant checkpoints": Example(lambda: Checkpoints(True), vectors(5, 6)),
    "frozen stem": Example(frozen_stem, vectors(5, 6)),
}
SKIPS = {**SEPARATED, **CONNECTED}
