"""Exact gradients in one step of k, in networks with checkpoints and frozen layers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytorch_dni import DNI


class Blocks(nn.Module):
    """Two blocks, each of several cuts and run under a checkpoint, and two outputs."""

    def __init__(self, checkpointed):
        super().__init__()
        self.checkpointed = checkpointed
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8))
            for _ in range(2)
        )

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.head(x), x.mean(1)


def gradients(checkpointed, batch, frozen):
    """Return the gradients of each of six steps."""
    torch.manual_seed(0)
    network = Blocks(checkpointed)
    network.blocks[1].requires_grad_(not frozen)
    net = DNI(network, exact_every=2)
    found = []
    for step in range(6):
        torch.manual_seed(step)
        network.zero_grad()
        scores, mean = net(torch.randn(batch, 6))
        (F.cross_entropy(scores, torch.randint(3, (batch,))) + mean.square().mean()).backward()
        found.append(copy.deepcopy([p.grad for p in network.parameters()]))
    return found


# A batch of 8: the tensors that a block saves have equal shapes, and PyTorch finds no mistake.
@pytest.mark.parametrize("batch", [5, 8])
@pytest.mark.parametrize("frozen", [False, True])
def test_cuts_inside_of_checkpoints_change_no_gradient(batch, frozen):
    plain, saving = gradients(False, batch, frozen), gradients(True, batch, frozen)
    for one, other in zip(plain, saving, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a is b is None or torch.equal(a, b)


class Adapted(nn.Module):
    """Frozen layers with small trained ones beside them, and two outputs."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.ModuleList(nn.Linear(6, 6).requires_grad_(False) for _ in range(3))
        self.trained = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        for frozen, trained in zip(self.frozen, self.trained, strict=False):
            x = torch.tanh(frozen(x + trained(x)))
        x = self.frozen[2](x)
        return self.head(x), x


def test_parts_before_frozen_layers_learn_in_every_step():
    net = DNI(Adapted(), exact_every=2, layers=["trained.*", "frozen.2"])
    for step in range(6):
        net.zero_grad()
        scores, _ = net(torch.randn(5, 6))
        F.cross_entropy(scores, torch.randint(3, (5,))).backward()
        for trained in net.network.trained:
            assert trained.weight.grad is not None, step
            assert trained.weight.grad.abs().sum() > 0 or step < 2
