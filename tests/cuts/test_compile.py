"""``DNI(...).compile()``: what lies between cuts is compiled, with the same results."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI


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
    """What was compiled."""
    made, own = [], torch.compile

    def noted(function, **options):
        made.append(function)
        return own(function, **options)

    monkeypatch.setattr(torch, "compile", noted)
    return made


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_results_are_the_same(backend, eager, late, compilations):
    torch.manual_seed(0)
    network = build()
    nets = []
    for compiled in (False, True):
        torch.manual_seed(3)
        example = None if late else torch.randn(5, 4)
        net = DNI(copy.deepcopy(network), layers="1.*", eager=eager, example_input=example)
        if compiled:
            net.compile(backend=backend)
        train(net)
        nets.append(net)
    for ours, theirs in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert [function.__self__ for function in compilations] == [*nets[1].network[1]]


def test_a_module_that_holds_a_cut_is_not_compiled_as_a_whole(compilations):
    net = DNI(build(), layers=["1.0.wide", "1.1"], example_input=torch.randn(5, 4))
    net.compile(backend="eager")
    train(net, 2)
    assert [function.__self__ for function in compilations] == [
        net.network[1][1],
        net.network[1][2],
    ]


@pytest.mark.parametrize("how", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_have_their_own(how):
    net = DNI(build(), layers="1.*", example_input=torch.randn(5, 4))
    net.compile(backend="eager")
    train(net, 2)
    copied = how(net)
    kept = [parameter.clone() for parameter in net.parameters()]
    train(copied, 2)
    for ours, was in zip(net.parameters(), kept, strict=True):
        assert torch.equal(ours, was)
    train(net, 2)
    for ours, theirs in zip(copied.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_unwrapping_takes_it_back():
    network = build()
    patched = network[1][2].forward
    network[1][2].forward = lambda x: patched(x)
    own = network[1][2].forward
    net = DNI(network, layers="1.*", example_input=torch.randn(5, 4))
    net.compile(backend="eager")
    train(net, 1)
    bare = net.unwrap()
    assert bare[1][2].forward is own
    assert all("forward" not in m.__dict__ for m in bare.modules() if m is not bare[1][2])
