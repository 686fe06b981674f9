"""The wrapper does not change the user's random numbers."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.wrapped import WAYS


@pytest.mark.parametrize("options", [{"bp_lambda": 1.0}, *WAYS.values()])
def test_random_numbers_are_those_of_the_bare_network(options):
    """Dropout masks and the order of data stay as without the wrapper, for the same seed."""
    draws = []
    for wrapped in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        net = DNI(network, **options) if wrapped else network
        for _ in range(2):
            net(torch.randn(4, 6)).sum().backward()
        draws.append(torch.rand(3))
    assert torch.equal(*draws)
