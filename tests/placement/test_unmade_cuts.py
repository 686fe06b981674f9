"""Cuts that are asked for and cannot be made are named; skipped ones are made by a later pass."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, SelectionError
from tests.support.wrapped import ALL_WAYS

X, Y = torch.randn(6, 8), torch.randint(0, 3, (6,))


class Record:
    def __init__(self, value):
        self.value = value


class Block(nn.Module):
    """Returns a record, its input where it is skipped, or else its activation."""

    def __init__(self, returns="activation"):
        super().__init__()
        self.layer, self.act = nn.Linear(8, 8), nn.Tanh()
        self.returns = returns

    def forward(self, x):
        if self.returns == "input":
            return x
        x = self.act(self.layer(x))
        return Record(x) if self.returns == "record" else x


class Network(nn.Module):
    def __init__(self, returns):
        super().__init__()
        self.first, self.block, self.last = nn.Linear(8, 8), Block(returns), nn.Linear(8, 3)

    def forward(self, x):
        x = self.block(self.first(x))
        return self.last(x.value if isinstance(x, Record) else x)


def train(net, steps=1):
    for _ in range(steps):
        F.cross_entropy(net(X), Y).backward()


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_named_module_that_returns_a_class_of_its_own_is_an_error(way):
    net = DNI(Network("record"), layers=["first", "block"], **ALL_WAYS[way])
    with pytest.raises(SelectionError, match=r"'block' .Block. returned Record, in which no float"):
        net(X)
    assert not net.interfaces


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_found_module_that_returns_a_class_of_its_own_is_a_warning(way):
    net = DNI(Network("record"), layers="*", **ALL_WAYS[way])
    with pytest.warns(UserWarning, match="no cut at some modules .* 'block' returned Record"):
        net(X)
    assert [part.cut for part in net._rooms.cuts.parts] == ["first", ""]


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_module_that_returns_another_class_later_is_a_warning_once(way):
    network = Network("activation")
    net = DNI(network, layers=["first", "block"], **ALL_WAYS[way])
    train(net)
    network.block.returns = "record"
    with pytest.warns(UserWarning, match="no cut at 'block' .Block., which returned Record"):
        train(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(net)


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("example", [False, True])
def test_a_skipped_block_gets_its_cut_when_it_runs(way, example):
    network = Network("input")
    options = {**ALL_WAYS[way], "example_input": X if example else None}
    net = DNI(network, layers=["first", "block"], **options)
    train(net, 2)
    assert [*net.interfaces] == ["first"]
    assert "not reached yet: 'block'" in net.describe()
    updates = net.stats()["first"].updates
    network.block.returns = "activation"
    train(net, 2)
    assert [*net.interfaces] == ["first", "block"]
    assert "not reached" not in net.describe()
    assert net.stats()["first"].updates > updates
    assert net.stats()["block"].updates
    network.block.returns = "input"
    train(net, 2)


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("resumed", [False, True])
def test_layers_of_a_skipped_block_get_their_cut_after_their_activation(way, resumed):
    network = Network("input")
    options = ALL_WAYS[way]
    net = DNI(network, **options)
    train(net)
    assert [*net.interfaces] == ["first"]
    if resumed:
        state = copy.deepcopy(net.state_dict())
        net = DNI(net.unwrap(), **options)
        net.load_state_dict(state)
    train(net)
    network.block.returns = "activation"
    if way == "eager":
        with pytest.warns(UserWarning, match="placed: 'block.layer'. With eager"):
            train(net)
        assert [*net.interfaces] == ["first"]
    else:
        train(net, 3)
        assert [*net.interfaces] == ["first", "block.act"]
        assert net.stats()["block.act"].updates
    # Nothing waits any more, and nothing is left behind.
    train(net)
    handles = sum(len(module._forward_hooks) for module in network.modules())
    train(net)
    assert handles == sum(len(module._forward_hooks) for module in network.modules())
    bare = net.unwrap()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bare.modules())


def test_a_layer_that_never_runs_costs_no_recording():
    network = Network("input")
    net = DNI(network, unlock="update")
    train(net, 3)
    waiting = {name for name, m in network.named_modules() if m._forward_hooks}
    assert waiting == {"", "first", "block", "block.layer"}
    assert [*copy.deepcopy(net).interfaces] == ["first"]


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = self.body(x)
        return self.head(x), x.mean(1)


def test_a_single_cut_at_which_the_error_is_taken_is_warned_of():
    net = DNI(TwoOutputs())
    with pytest.warns(UserWarning, match=r"makes no synthesizer.*'body\.1' is the only cut"):
        net(torch.randn(3, 4))[0].sum().backward()
    assert not net.interfaces
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = DNI(TwoOutputs(), unlock="update", example_input=torch.randn(3, 4))
    assert [*net.interfaces] == ["body.1"]
