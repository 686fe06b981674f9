"""Eager learning: errors for options, synthesizers and loops that do not fit."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError, Linear_DNI
from tests.support.eager_nets import default_and_eager
from tests.support.zoo import ZOO


def test_a_second_backward_pass_through_one_graph_is_an_error():
    net = default_and_eager("mlp")[1]
    loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()))
    loss.backward(retain_graph=True)
    with pytest.raises(DNIError, match="delivered already"):
        loss.backward()


def test_options_that_exclude_each_other_are_errors():
    with pytest.raises(DNIError, match="eager takes unlock='update'"):
        DNI(ZOO["mlp"].build(), eager=True, unlock="full")
    with pytest.raises(DNIError, match="recurrent=False"):
        DNI(ZOO["lstm"].build(), eager=True)


def test_a_synthesizer_of_the_wrong_shape_leaves_no_gradient():
    net = DNI(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
        eager=True,
        dni_network=lambda name, module, output: Linear_DNI(8, 4, 5),
    )
    with pytest.raises(DNIError, match="predicts shape"):
        net(torch.randn(4, 6))
    assert all(p.grad is None for p in net.parameters())
