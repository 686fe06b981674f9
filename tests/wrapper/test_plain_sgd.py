"""Networks without normalisation learn with SGD, whose steps grow with the gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI

STEPS = 220


def clusters():
    """Return points of 40 clusters in 64 dimensions, four for each class."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 64, generator=draw)
    cluster = torch.randint(0, 40, (4096,), generator=draw)
    return centres[cluster] + torch.randn(4096, 64, generator=draw), cluster % 10


@pytest.mark.parametrize(("lr", "momentum"), [(0.05, 0.9), (0.2, 0.0)])
def test_learned_feedback_does_not_diverge(lr, momentum):
    # Without the decay of activations, all of these runs diverge before step 190.
    points, classes = clusters()
    torch.manual_seed(1)
    layers = [layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Linear(64, 10))
    opt = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum)
    net = DNI(network, optim=opt)
    losses = []
    for _ in range(STEPS):
        chosen = torch.randint(0, len(points), (64,))
        opt.zero_grad()
        loss = F.cross_entropy(net(points[chosen]), classes[chosen])
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < 0.5
