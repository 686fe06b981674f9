"""Wrapping, training and unwrapping again and again: nothing is left of a wrapper."""

import copy
import gc
import weakref

import pytest
import torch

from pytorch_dni import DNI
from tests.support.hooks import fingerprint
from tests.support.ways import data, run_of, WAYS


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.long)])
@pytest.mark.parametrize("way", WAYS)
def test_rounds_leave_nothing(way, rounds):
    run = run_of(way)
    network, steps = run.network, iter(range(1000))
    options = {"context_size": None, **WAYS[way]}
    run.net.unwrap()
    before, keys = fingerprint(network), list(network.state_dict())
    buffers = [id(buffer) for buffer in network.buffers()]
    watched = []
    for _ in range(rounds):
        run.net = DNI(network, optim=run.opt, **options)
        step = next(steps)
        run.train(3 * step, 3 * step + 3)
        interfaces = [*run.net.interfaces.values()]
        parts = [getattr(i, "backward_interface", i).synthesizer for i in interfaces]
        watched += map(weakref.ref, [run.net, run.net._rooms, *interfaces, *parts])
        assert run.net.unwrap() is network
        run.net = None
        del interfaces, parts
        assert fingerprint(network) == before
        assert list(network.state_dict()) == keys
        assert [id(buffer) for buffer in network.buffers()] == buffers
    gc.collect()
    assert [ref() for ref in watched] == [None] * len(watched)
    assert_learns_by_backpropagation(network)


def assert_learns_by_backpropagation(network):
    bare = copy.deepcopy(network)
    x, _ = data(0)
    for one in (network, bare):
        one.zero_grad()
        one(x).square().mean().backward()
    for a, b in zip(network.parameters(), bare.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
