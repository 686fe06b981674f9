"""``stats()`` measures synthetic gradients against true ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, DNI_Network


def test_stats_equal_their_definitions():
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    noise = torch.randn(8, 5)

    class Fixed(DNI_Network):
        normalize_target = False

        def forward(self, input, hidden):
            return noise, None

    x = torch.randn(8, 4)
    h = network[0](x).detach().requires_grad_()
    (expected,) = torch.autograd.grad(network[1](h).square().mean(), h)
    net = DNI(network, dni_network=lambda *a: Fixed(1, 1, 1))
    net(x).square().mean().backward()
    stats = net.stats()["0"]
    cosine = F.cosine_similarity(noise.flatten(), expected.flatten(), dim=0)
    assert stats.cosine == pytest.approx(cosine.item(), rel=1e-4)
    assert stats.norm_ratio == pytest.approx((noise.norm() / expected.norm()).item(), rel=1e-4)
    loss = (noise - expected).square().sum() / expected.square().sum()
    assert stats.loss == pytest.approx(loss.item(), rel=1e-4)
    assert stats.updates == 1
