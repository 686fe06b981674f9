"""``print`` shows the unlock level and the cuts of a wrapped network."""

import torch
from torch import nn

from pytorch_dni import DNI, Linear_DNI


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def test_cuts_are_shown_when_they_are_known():
    net = DNI(network())
    assert "unlock='backward'\n  cuts: placed in the first forward pass in training\n" in str(net)
    net(torch.randn(2, 4))
    assert "unlock='backward'\n  cut after 1: Feedback_DNI, 24 parameters\n" in str(net)
    assert "(network): Sequential(" in str(net)


def test_both_directions_count_under_the_full_unlock():
    net = DNI(network(), unlock="full", dni_network=Linear_DNI, example_input=torch.randn(2, 4))
    (interface,) = net.interfaces.values()
    parts = interface.backward_interface.synthesizer, interface.forward_interface.synthesizer
    number = sum(p.numel() for module in parts for p in module.parameters())
    assert f"unlock='full'\n  cut after 1: Linear_DNI, {number:,} parameters\n" in str(net)


def test_a_cut_at_the_output_is_named():
    net = DNI(network(), recursive=False)
    net(torch.randn(2, 4))
    assert "cut after the network: Linear_DNI" in str(net)


def test_an_example_is_enough_to_describe_the_parts():
    text = DNI(network(), example_input=torch.randn(2, 4)).describe()
    assert "Feedback_DNI" in text
    assert "unlock: backward" in text
