"""Cuts before an activation function that is no module of its own are named."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI
from tests.support.wrapped import ALL_WAYS
from tests.support.zoo import Functional, ZOO


class Normalised(nn.Module):
    """A function after a norm, and a module that runs twice."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.third, self.fourth, self.act = nn.Linear(8, 8), nn.Linear(8, 2), nn.SiLU()

    def forward(self, x):
        x = F.leaky_relu(self.norm(self.first(x)))
        return self.fourth(self.act(self.third(self.act(self.second(x)))))


KINDS = {
    Functional: "'first' (relu), 'second' (gelu)",
    Normalised: "'first' (leakyrelu), 'second' (silu), 'third' (silu)",
}


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("example", [False, True])
def test_they_are_named_once_and_described(way, kind, example):
    x = torch.randn(5, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = DNI(kind(), example_input=x if example else None, **ALL_WAYS[way])
        for _ in range(3):
            net(x).square().mean().backward()
    found = [str(w.message) for w in caught if "before an activation" in str(w.message)]
    assert len(found) == 1
    assert KINDS[kind] in found[0]
    assert f"cut before the activation function: {KINDS[kind]}" in net.describe()
    loaded = DNI(kind(), **ALL_WAYS[way])
    loaded.load_state_dict(net.state_dict())
    assert loaded.describe() == net.describe()


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("name", ["mlp", "cnn", "batchnorm_inplace", "conv1d", "dropout"])
def test_modules_that_are_activation_functions_are_not(way, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = DNI(ZOO[name].build(), example_input=ZOO[name].input(), **ALL_WAYS[way])
    assert "before the activation" not in net.describe()


def test_chosen_places_are_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DNI(Functional(), layers=["first"], example_input=torch.randn(5, 6))
