"""Wrapping, training, unwrapping: the network is as it was, and no memory is held."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.zoo import mlp, ZOO


def fingerprint(network):
    return {
        name: (
            type(m),
            sorted(vars(m)),
            [len(v) for k, v in sorted(vars(m).items()) if "hooks" in k],
        )
        for name, m in network.named_modules()
    }


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("steps", [0, 2])
def test_unwrap_restores_everything(name, steps):
    example = ZOO[name]
    network = example.build()
    before, keys = fingerprint(network), list(network.state_dict())
    net = DNI(network)
    for _ in range(steps):
        example.loss(net(example.input())).backward()
    bare = net.unwrap()
    assert bare is network
    assert fingerprint(network) == before
    assert list(network.state_dict()) == keys
    assert not net.interfaces
    x = example.input()
    torch.manual_seed(0)
    network.zero_grad()
    example.loss(network(x)).backward()
    expected = copy.deepcopy([p.grad for p in network.parameters()])
    torch.manual_seed(0)
    network.zero_grad()
    example.loss(net(x)).backward()
    for a, b in zip(expected, [p.grad for p in network.parameters()], strict=True):
        assert a is b is None or torch.equal(a, b)


def test_users_own_hooks_stay():
    network = mlp()
    seen = []
    network[0].register_forward_hook(lambda *a: seen.append(1))
    net = DNI(network)
    net(torch.randn(2, 6)).sum().backward()
    net.unwrap()
    network(torch.randn(2, 6))
    assert len(seen) == 2


def test_no_memory_is_held():
    network = mlp()
    net = DNI(network)
    x = torch.randn(4, 6)
    out = net(x)
    out.sum().backward()
    activation = weakref.ref(out)
    interface = next(iter(net.interfaces.values()))
    watched = [weakref.ref(t) for t in (interface, interface.synthesizer, net, net._cuts)]
    net.unwrap()
    del net, interface, out
    gc.collect()
    assert activation() is None
    assert [ref() for ref in watched] == [None] * len(watched)
    assert network(x) is not None


def test_activations_are_freed_with_the_graph():
    """Between steps an interface keeps no activation, not even in the first one."""
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    refs = []
    network[1].register_forward_hook(lambda m, a, out: refs.append(weakref.ref(out)))
    net = DNI(network)
    for _ in range(3):
        net(torch.randn(4, 6)).sum().backward()
    gc.collect()
    assert len(refs) == 3
    assert [ref() for ref in refs] == [None] * 3


def test_unwrap_between_forward_and_backward_gives_backpropagation():
    network = mlp()
    bare = copy.deepcopy(network)
    net = DNI(network)
    x = torch.randn(4, 6)
    net(x).sum().backward()
    network.zero_grad()
    loss = net(x).sum()
    net.unwrap()
    loss.backward()
    bare(x).sum().backward()
    for a, b in zip(network.parameters(), bare.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
