"""Training with autocast, scaled losses and activations that overflow."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    DNI,
    Feedback_DNI,
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    synthesizer_context,
)
from tests.support.wrapped import synthesizer_parameters

KINDS = {
    "regressed": {"dni_network": Linear_DNI, "context_size": 3},
    "local": {"dni_network": LocalLoss_DNI, "context_size": 3},
    "local error": {"dni_network": LocalError_DNI, "context_size": 3},
    "feedback": {"dni_network": Feedback_DNI},
    "gated": {"dni_network": Feedback_DNI, "dni_params": {"gate": True}},
    "exact every": {"exact_every": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_and_loss_scaling(kind):
    """Training works with half-precision activations, scaled losses and an infinite loss."""
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    opt = torch.optim.SGD(network.parameters(), lr=0.1)
    net = DNI(network, optim=opt, **KINDS[kind])
    takes_context = "context_size" in KINDS[kind]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    losses = []
    for step in range(60):
        opt.zero_grad()
        context = synthesizer_context(y if takes_context else None)
        with torch.autocast("cpu", torch.bfloat16), context:
            loss = F.cross_entropy(net(x), y)
        if step == 5:
            loss = loss * float("inf")
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        losses.append(loss.item())
    interface = next(iter(net.interfaces.values()))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in interface.parameters())
    assert all(p.isfinite().all() for p in network.parameters())
    assert losses[-1] < 0.8 * losses[0]
    first = network[0].weight.grad.norm()  # scaler.step() has divided it by the scale.
    bare = copy.deepcopy(net.network)
    bare.zero_grad()
    F.cross_entropy(net.unwrap()(x), y).backward()
    true = network[0].weight.grad.norm()
    assert 0.1 < first / true < 10


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "exact every"])
def test_activations_that_overflow_teach_nothing(kind):
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    net = DNI(network, **KINDS[kind])
    x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
    before = []
    for scale in (1.0, 1.0, float("inf")):
        before = [p.clone() for p in synthesizer_parameters(net)]
        with synthesizer_context(y if "context_size" in KINDS[kind] else None):
            F.cross_entropy(net(x * scale), y).backward()
    after = synthesizer_parameters(net)
    assert before
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
