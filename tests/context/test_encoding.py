"""Contexts: how labels and features reach a synthesizer."""

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, Linear_DNI, synthesizer_context
from tests.support.recording import synthesizer_input


def test_labels_are_one_hot_and_joined_along_the_features():
    y = torch.tensor([0, 2, 1])
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    x = torch.randn(3, 4)
    given = synthesizer_input(network, x, y, 3)
    assert torch.equal(given[:, :5], network[0](x))
    assert torch.equal(given[:, 5:], F.one_hot(y, 3).float())


def test_float_contexts_are_cast_to_the_activations_dtype():
    c = torch.randn(3, 2)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)).double()
    given = synthesizer_input(network, torch.randn(3, 4).double(), c, 2)
    assert given.dtype == torch.float64
    assert torch.equal(given[:, 5:], c.double())


def test_one_label_for_a_sample_is_repeated_at_its_positions():
    y = torch.tensor([1, 0])
    given = synthesizer_input(
        nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), torch.randn(2, 3, 4), y, 2
    )
    assert torch.equal(given[..., 5:], F.one_hot(y, 2).float()[:, None].expand(2, 3, 2))


def test_labels_of_positions_are_joined_at_their_positions():
    y = torch.randint(0, 2, (2, 3))
    given = synthesizer_input(
        nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), torch.randn(2, 3, 4), y, 2
    )
    assert torch.equal(given[..., 5:], F.one_hot(y, 2).float())


def test_labels_are_repeated_over_time_where_time_comes_first():
    y = torch.tensor([1, 0])
    given = synthesizer_input(
        nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), torch.randn(3, 2, 4), y, 2
    )
    assert torch.equal(given[..., 5:], F.one_hot(y, 2).float()[None].expand(3, 2, 2))


def test_convolutions_get_channels_and_label_maps_are_resized():
    network = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.Flatten(), nn.Linear(12, 1))
    x = torch.randn(2, 1, 5, 5)
    y = torch.tensor([1, 0])
    given = synthesizer_input(network, x, y, 2)
    assert given.shape == (2, 5, 2, 2)
    assert torch.equal(given[:, 3:, 1, 0], F.one_hot(y, 2).float())
    maps = torch.zeros(2, 4, 4, dtype=torch.int64)
    maps[:, 2:] = 1
    given = synthesizer_input(network, x, maps, 2)
    assert torch.equal(given[0, 4], torch.tensor([[0.0, 0.0], [1.0, 1.0]]))


def test_no_gradient_flows_into_a_context():
    c = torch.randn(3, 2, requires_grad=True)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    net = DNI(network, dni_network=Linear_DNI, context_size=2)
    for _ in range(2):
        with synthesizer_context(c):
            net(torch.randn(3, 4)).sum().backward()
    assert c.grad is None
