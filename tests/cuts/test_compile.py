"""``DNI(...).compile()`` compiles what lies between cuts, with the same results."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI
from tests.support.checkpoints import COPIES
from tests.support.wrapped import WAYS


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.narrow(F.gelu(self.wide(x)))


def build():
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(Block(), Block(), Block()), nn.Linear(8, 2))


def train(net, steps=6):
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()


@pytest.fixture
def compilations(monkeypatch):
    """Return a list of the functions that are compiled in the test."""
    functions, original = [], torch.compile

    def recorded(function, **options):
        functions.append(function)
        return original(function, **options)

    monkeypatch.setattr(torch, "compile", recorded)
    return functions


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("way", [*WAYS, "eager"])
@pytest.mark.parametrize("late", [False, True])
def test_compiled_results_equal_uncompiled_ones(backend, way, late, compilations):
    torch.manual_seed(0)
    network = build()
    nets = []
    for compiled in (False, True):
        torch.manual_seed(3)
        example = None if late else torch.randn(5, 4)
        options = WAYS.get(way, {"eager": True})
        net = DNI(copy.deepcopy(network), layers="1.*", example_input=example, **options)
        if compiled:
            net.compile(backend=backend)
        train(net)
        nets.append(net)
    for ours, theirs in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert [function.__self__ for function in compilations] == [*nets[1].network[1]]


def test_a_module_that_contains_a_cut_is_not_compiled_as_a_whole(compilations):
    net = DNI(build(), layers=["1.0.wide", "1.1"], example_input=torch.randn(5, 4))
    net.compile(backend="eager")
    train(net, 2)
    assert [function.__self__ for function in compilations] == [
        net.network[1][1],
        net.network[1][2],
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", COPIES)
def test_copies_train_independently_and_equally(how, way):
    net = DNI(build(), layers="1.*", example_input=torch.randn(5, 4), **WAYS[way])
    net.compile(backend="eager")
    train(net, 2)
    copied = how(net)
    before = [parameter.clone() for parameter in net.parameters()]
    train(copied, 2)
    for ours, was in zip(net.parameters(), before, strict=True):
        assert torch.equal(ours, was)
    train(net, 2)
    for ours, theirs in zip(copied.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_unwrap_restores_the_forward_methods():
    network = build()
    original = network[1][2].forward
    network[1][2].forward = lambda x: original(x)
    patched = network[1][2].forward
    net = DNI(network, layers="1.*", example_input=torch.randn(5, 4))
    net.compile(backend="eager")
    train(net, 1)
    bare = net.unwrap()
    assert bare[1][2].forward is patched
    assert all("forward" not in m.__dict__ for m in bare.modules() if m is not bare[1][2])
