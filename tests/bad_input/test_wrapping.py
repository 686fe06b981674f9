"""Wrapping that cannot be done: what is missing, and what has been done already."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pytorch_dni import DNI, DNIError, SelectionError
from tests.support.hooks import forward_hooks
from tests.support.ways import run_of, WAYS
from tests.support.wrapped import classifier

NAMES = {name for name, _ in classifier().named_modules()}
X = torch.randn(4, 6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.one_of(
        st.text(max_size=6).filter(lambda text: text not in NAMES and "*" not in text),
        st.sampled_from(["layer*", "0.weight", "**.x", "0.*", " 0", "7"]),
    ),
    form=st.sampled_from(["name", "list", "with others"]),
)
def test_names_that_match_nothing_are_errors_that_list_the_modules(name, form):
    if any(mark in name for mark in "?["):
        return  # patterns
    network = classifier()
    layers = {"name": name, "list": [name], "with others": ["0", name]}[form]
    with pytest.raises(SelectionError, match=r"There is: '0' \(Linear\)"):
        DNI(network, layers=layers)
    assert not forward_hooks(network)


@pytest.mark.parametrize(
    "layers",
    [
        nn.Conv2d,
        nn.Linear(6, 8),
        lambda name, module: False,
        [],
        (),
        [nn.LSTM, "0"],
        100,
        1,
        0,
        -3,
        {},
        [3],
        [None],
        torch.ones(2),
        torch.ones(()),
        2.5,
        True,
        object(),
    ],
)
@pytest.mark.parametrize("example", [None, X])
def test_layers_that_cannot_be_found_are_errors(layers, example):
    network = classifier()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DNIError):
        net = DNI(network, layers=layers, example_input=example)
        net(X)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("way", WAYS)
def test_wrapping_twice_is_an_error_and_the_first_goes_on(way):
    run, other = run_of(way), run_of(way)
    for step in range(2):
        for network in (run.network, run.net, nn.Sequential(run.net), nn.Sequential(run.network)):
            hooks = len(forward_hooks(run.network))
            with pytest.raises(DNIError, match=r"wrapped in DNI already: unwrap\(\) it first"):
                DNI(network)
            assert len(forward_hooks(run.network)) == hooks
        for one in (run, other):
            one.train(step, step + 1)
    for a, b in zip(run.tensors(), other.tensors(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("way", WAYS)
def test_unwrapping_twice_changes_nothing_more(way):
    run = run_of(way)
    run.train(0, 2)
    bare = run.net.unwrap()
    assert run.net.unwrap() is bare is run.network
    assert not forward_hooks(bare)
    bare(X).sum().backward()
    assert not run.net.interfaces
    again = DNI(bare)  # It can be wrapped anew.
    again(X).sum().backward()
    assert again.interfaces
    assert run.net.unwrap() is bare  # This must not take away what the other has registered.
    assert forward_hooks(bare)


@pytest.mark.parametrize("way", WAYS)
def test_an_unwrapped_wrapper_is_the_bare_network(way):
    run = run_of(way)
    run.train(0, 2)
    run.net.unwrap()
    run.network.zero_grad()
    bare = copy.deepcopy(run.network)
    for network in (run.net, bare):
        network(X).square().sum().backward()
    for a, b in zip(run.network.parameters(), bare.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    run.net.train()
    run.net.eval()
    assert not forward_hooks(run.network)
    assert run.net.stats() == {}
