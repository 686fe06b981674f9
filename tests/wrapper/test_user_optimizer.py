"""The user's optimizer trains the network alone."""

import pytest
import torch

from pytorch_dni import DNI
from tests.support.wrapped import synthesizer_parameters, WAYS
from tests.support.zoo import mlp


@pytest.mark.parametrize("way", WAYS)
def test_the_users_optimizer_gets_no_parameter_of_a_synthesizer(way):
    network = mlp()
    net = DNI(network, example_input=torch.randn(2, 6), **WAYS[way])
    assert net.interfaces
    assert [id(p) for p in net.parameters()] == [id(p) for p in network.parameters()]
    synthesizers = {id(p) for p in synthesizer_parameters(net)}
    assert synthesizers
    before = [p.clone() for p in synthesizer_parameters(net)]
    opt = torch.optim.SGD(net.parameters(), lr=10.0)
    net(torch.randn(8, 6)).square().mean().backward()
    trained = [p.clone() for p in synthesizer_parameters(net)]
    assert any(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))
    opt.step()
    after = synthesizer_parameters(net)
    assert all(torch.equal(a, b) for a, b in zip(trained, after, strict=True))
    assert all(p.grad is None for p in after)
