"""``example_input`` places the cuts and changes nothing else."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.wrapped import WAYS


@pytest.mark.parametrize("way", WAYS)
def test_example_input_leaves_the_network_as_it_was(way):
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.random.get_rng_state()
    example = torch.randn(4, 6, generator=torch.Generator())
    net = DNI(network, example_input=example, **WAYS[way])
    assert torch.equal(state, torch.random.get_rng_state())
    assert list(net.interfaces) == ["2"]
    assert [m.training for m in network] == [True, False, True, True]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_example_input_may_be_arguments_or_keywords():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x, *, scale):
            return self.b(self.a(x) * scale)

    example = {"x": torch.randn(2, 3), "scale": 2.0}
    assert list(DNI(Two(), example_input=example).interfaces) == ["a"]

    class Pair(Two):
        def forward(self, x, scale):
            return super().forward(x, scale=scale)

    assert list(DNI(Pair(), example_input=(torch.randn(2, 3), 2.0)).interfaces) == ["a"]
