"""What the tests of interfaces by hand share."""

import torch
from torch import nn

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    Conv2d_DNI,
    Linear_DNI,
    LocalLoss_DNI,
    RNN_DNI,
)

LR = 0.3


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def linear(before, after):
    return nn.Linear(before, after, bias=False).double()


def synthesizer(before, after):
    return BasicSynthesizer(after, trigger_dim=before).double()


def agrees(found, reference):
    close(found.layers.last.weight.detach(), reference.a.t())
    close(found.layers.last.bias.detach(), reference.b)


def every_kind(optim="adam"):
    options = {"optim": optim, "context_size": 3}
    return {
        "linear": (BackwardInterface(Linear_DNI(8, 7, 5), **options), (4, 5)),
        "rnn": (BackwardInterface(RNN_DNI(8, 7, 5), **options), (4, 6, 5)),
        "conv": (BackwardInterface(Conv2d_DNI(8, 7, 5), **options), (4, 5, 6, 6)),
        "local": (BackwardInterface(LocalLoss_DNI(5, 7, 3), **options), (4, 5)),
        "basic": (BackwardInterface(BasicSynthesizer(5, 1, 7, context_dim=3), optim=optim), (4, 5)),
    }
