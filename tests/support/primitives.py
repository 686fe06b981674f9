"""Helpers for the tests of interfaces that are placed by hand."""

import torch
from torch import nn

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    Conv2d_DNI,
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    RNN_DNI,
)

LR = 0.3


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def assert_matches_regression(synthesizer, regression):
    """Compare a synthesizer of one layer with a reference's :class:`Regression`."""
    assert_close(synthesizer.layers.last.weight.detach(), regression.a.t())
    assert_close(synthesizer.layers.last.bias.detach(), regression.b)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def linear(before, after):
    return nn.Linear(before, after, bias=False).double()


def synthesizer(before, after):
    return BasicSynthesizer(after, trigger_dim=before).double()


def every_kind(optim="adam"):
    """Return an interface for each kind of synthesizer, and a shape that fits it."""
    options = {"optim": optim, "context_size": 3}
    return {
        "linear": (BackwardInterface(Linear_DNI(8, 7, 5), **options), (4, 5)),
        "rnn": (BackwardInterface(RNN_DNI(8, 7, 5), **options), (4, 6, 5)),
        "conv": (BackwardInterface(Conv2d_DNI(8, 7, 5), **options), (4, 5, 6, 6)),
        "local": (BackwardInterface(LocalLoss_DNI(5, 7, 3), **options), (4, 5)),
        "local error": (BackwardInterface(LocalError_DNI((4, 5), 3), **options), (4, 5)),
        "basic": (BackwardInterface(BasicSynthesizer(5, 1, 7, context_dim=3), optim=optim), (4, 5)),
    }


def activation(*shape):
    """Return a random tensor that requires a gradient and is no leaf."""
    return torch.randn(*shape, requires_grad=True) * 1


def batchnorm_mlp():
    return nn.Sequential(
        nn.Linear(6, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )
