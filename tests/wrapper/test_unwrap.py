"""``unwrap()`` gives the network back as it was."""

import copy

import pytest
import torch

from pytorch_dni import DNI
from tests.support.hooks import fingerprint
from tests.support.wrapped import on, WAYS
from tests.support.zoo import mlp, ZOO


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("steps", [0, 2])
def test_unwrap_restores_the_network(name, steps, way):
    example = ZOO[name]
    network = example.build()
    before, keys = fingerprint(network), list(network.state_dict())
    net = DNI(network, **on(name, way))
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


@pytest.mark.parametrize("way", WAYS)
def test_unwrap_keeps_the_users_hooks(way):
    network = mlp()
    seen = []
    network[0].register_forward_hook(lambda *a: seen.append(1))
    net = DNI(network, **WAYS[way])
    net(torch.randn(2, 6)).sum().backward()
    net.unwrap()
    network(torch.randn(2, 6))
    assert len(seen) == 2


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_unwrap_between_forward_and_backward_gives_backpropagation(unlock):
    network = mlp()
    bare = copy.deepcopy(network)
    net = DNI(network, unlock=unlock)
    x = torch.randn(4, 6)
    net(x).sum().backward()
    network.zero_grad()
    loss = net(x).sum()
    net.unwrap()
    loss.backward()
    bare(x).sum().backward()
    for a, b in zip(network.parameters(), bare.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
