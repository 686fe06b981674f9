"""Parameters that need no gradient are not trained."""

import pytest
import torch

from pytorch_dni import DNI, Linear_DNI
from tests.support.zoo import mlp


@pytest.mark.parametrize("eager", [False, True])
def test_frozen_parameters_of_synthesizers_are_not_trained(eager):
    def half_frozen(name, module, output):
        synthesizer = Linear_DNI(output.shape[1], 4, output.shape[1])
        synthesizer.layers.first.weight.requires_grad_(False)
        return synthesizer

    torch.manual_seed(0)
    net = DNI(mlp(), dni_network=half_frozen, eager=eager, example_input=torch.randn(2, 6))
    layers = net.interfaces["1"].synthesizer.layers
    before = layers.first.weight.clone()
    for _ in range(3):
        net(torch.randn(4, 6)).square().sum().backward()
    assert torch.equal(layers.first.weight, before)
    assert layers.first.weight.grad is None
    assert layers.last.weight.any()


def test_frozen_parts_get_no_cut_until_they_train():
    network = mlp()
    network[0].requires_grad_(False)
    net = DNI(network)
    net(torch.randn(4, 6)).sum().backward()
    assert list(net.interfaces) == ["3"]
    network[0].requires_grad_(True)
    net(torch.randn(4, 6)).sum().backward()
    assert set(net.interfaces) == {"1", "3"}
