"""Synthesizers learn gradients of any size, with any optimizer."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI


@pytest.mark.parametrize("unlock", ["backward", "update"])
@pytest.mark.parametrize("optim", ["adam", "adamw", "rmsprop", "sgd", torch.optim.Adagrad])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_synthesizers_learn_gradients_of_any_size(optim, size, unlock):
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    lr = {"sgd": 0.3, torch.optim.Adagrad: 0.1}.get(optim)
    net = DNI(network, grad_optim=optim, grad_lr=lr, unlock=unlock)
    x = torch.randn(64, 4)
    for _ in range(250):
        (net(x).square().mean() * size).backward()
    stats = net.stats()["0"]
    assert stats.loss < 0.2
    assert stats.cosine > 0.9
    assert 0.8 < stats.norm_ratio < 1.2
