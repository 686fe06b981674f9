"""Checkpoints and copies with the full unlock and with sparse updates."""

import copy

import pytest
import torch

from pytorch_dni import DNI
from tests.support.checkpoints import through_file
from tests.support.zoo import relu_mlp

OPTIONS = [
    {"unlock": "full"},
    {"unlock": "update", "update_probability": 0.3},
    {"unlock": "backward", "update_probability": 0.3},
    {"unlock": "backward", "exact_every": 4},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_resumed_training_equals_uninterrupted_training(options):
    torch.manual_seed(5)
    network = relu_mlp()
    whole = DNI(copy.deepcopy(network), **options)

    def train(net, steps, seed):
        torch.manual_seed(seed)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.randn(8, 6)).square().mean().backward()
            optimizer.step()

    train(whole, 5, 1)
    state = through_file(whole.state_dict())
    torch.manual_seed(77)
    resumed = DNI(copy.deepcopy(network), **options)
    resumed.load_state_dict(state)
    copied = copy.deepcopy(whole)
    for net in (whole, resumed, copied):
        train(net, 6, 2)
    for ours, *others in zip(*(n.parameters() for n in (whole, resumed, copied)), strict=True):
        assert all(torch.equal(ours, other) for other in others)
    assert whole.stats() == resumed.stats() == copied.stats()
