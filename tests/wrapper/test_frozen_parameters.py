"""Parameters that need no gradient are not trained."""

import pytest
import torch

from pytorch_dni import DNI, Feedback_DNI, Linear_DNI
from tests.support.wrapped import WAYS
from tests.support.zoo import mlp


def test_frozen_parameters_of_feedback_are_not_trained():
    net = DNI(
        mlp(),
        dni_network=Feedback_DNI,
        dni_params={"gate": True},
        example_input=torch.randn(2, 6),
    )
    feedback = net.interfaces["1"].synthesizer
    feedback.direct.weight.requires_grad_(False)
    for _ in range(3):
        net(torch.randn(4, 6)).square().sum().backward()
    assert not feedback.direct.weight.any()
    assert feedback.direct.weight.grad is None
    assert feedback.outer.weight.any()


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


@pytest.mark.parametrize("way", WAYS)
def test_frozen_parts_get_no_cut_until_they_train(way):
    network = mlp()
    network[0].requires_grad_(False)
    net = DNI(network, **WAYS[way])
    net(torch.randn(4, 6)).sum().backward()
    assert list(net.interfaces) == ["3"]
    network[0].requires_grad_(True)
    net(torch.randn(4, 6)).sum().backward()
    assert set(net.interfaces) == {"1", "3"}
