"""The wrapper holds no memory after a step or after ``unwrap()``."""

import gc
import weakref

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.wrapped import WAYS
from tests.support.zoo import mlp


@pytest.mark.parametrize("way", WAYS)
def test_unwrap_frees_the_wrapper_and_its_interfaces(way):
    network = mlp()
    net = DNI(network, **WAYS[way])
    x = torch.randn(4, 6)
    out = net(x)
    out.sum().backward()
    activation = weakref.ref(out)
    interface = next(iter(net.interfaces.values()))
    watched = [weakref.ref(t) for t in (interface, interface.synthesizer, net, net._rooms.cuts)]
    net.unwrap()
    del net, interface, out
    gc.collect()
    assert activation() is None
    assert [ref() for ref in watched] == [None] * len(watched)
    assert network(x) is not None


@pytest.mark.parametrize("way", WAYS)
def test_activations_and_errors_are_freed_after_each_step(way):
    """An interface keeps no activation between steps, nor after the first one."""
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    refs = []

    def watch(module, args, output):
        refs.append(weakref.ref(output))
        output.register_hook(lambda grad: refs.append(weakref.ref(grad)))

    for layer in network[1], network[3], network[4]:
        layer.register_forward_hook(watch)
    net = DNI(network, **WAYS[way])
    for _ in range(3):
        net(torch.randn(4, 6)).sum().backward()
        gc.collect()
        assert [ref() for ref in refs] == [None] * len(refs)
    assert len(refs) >= 3 * 4
