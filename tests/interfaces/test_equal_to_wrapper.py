"""Interfaces placed by hand train like the wrapper."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    DNI,
    Linear_DNI,
    LocalError_DNI,
    synthesizer_context,
)
from tests.support.primitives import batchnorm_mlp


class ByHandNetwork(nn.Module):
    """A network with two cuts where the wrapper places them."""

    def __init__(self, network, interfaces):
        super().__init__()
        self.network = network
        self.interfaces = nn.ModuleList(interfaces)

    def forward(self, x):
        h = self.network[:3](x)
        h = self._cut(0, h, x)
        h = self.network[3:6](h)
        return self.network[6:](self._cut(1, h, x))

    def _cut(self, i, h, x):
        if isinstance(self.interfaces[i], BidirectionalInterface):
            return self.interfaces[i](h, x)
        return self.interfaces[i](h)


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        (Linear_DNI, None),
        (Linear_DNI, 3),
        (BasicSynthesizer, None),
        (BasicSynthesizer, 3),
        (LocalError_DNI, 3),
    ],
)
@pytest.mark.parametrize("unlock", ["update", "full"])
def test_by_hand_and_wrapped_are_equal_after_twenty_steps(unlock, context, kind):
    network, example = batchnorm_mlp(), torch.randn(8, 6)
    wrapped = DNI(
        copy.deepcopy(network),
        dni_network=kind,
        unlock=unlock,
        context_size=context,
        example_input=example,
    )
    interfaces = []
    for interface in wrapped.interfaces.values():
        if unlock == "update":
            weights = copy.deepcopy(interface.synthesizer)
            interfaces.append(BackwardInterface(weights, context_size=context))
        else:
            activation = copy.deepcopy(interface.forward_interface.synthesizer)
            gradient = copy.deepcopy(interface.backward_interface.synthesizer)
            interfaces.append(BidirectionalInterface(activation, gradient, context_size=context))
    by_hand = ByHandNetwork(network, interfaces)
    nets = [wrapped, by_hand]
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-2) for net in nets]
    for _ in range(20):
        x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            with synthesizer_context(None if context is None else y):
                loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
    untrained = batchnorm_mlp()
    for ours, theirs, other in zip(
        wrapped.network.parameters(), network.parameters(), untrained.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, other)
    x = torch.randn(4, 6)
    assert torch.equal(wrapped.eval()(x), by_hand.eval()(x))
