"""The wrapper holds no memory after a step or after ``unwrap()``."""

import gc
import weakref

import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.zoo import mlp


def test_unwrap_frees_the_wrapper_and_its_interfaces():
    network = mlp()
    net = DNI(network)
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


def test_activations_are_freed_after_each_step():
    """An interface keeps no activation between steps, nor after the first one."""
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    refs = []
    network[1].register_forward_hook(lambda m, a, out: refs.append(weakref.ref(out)))
    net = DNI(network)
    for _ in range(3):
        net(torch.randn(4, 6)).sum().backward()
    gc.collect()
    assert len(refs) == 3
    assert [ref() for ref in refs] == [None] * 3
