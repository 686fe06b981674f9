"""Several forward passes in one backward pass: siamese networks and adversarial training."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from pytorch_dni._normalization import RunningScale
from tests.support.wrapped import fix_units


def network():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def train(net):
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(6):
        first, second = torch.randn(5, 6).double(), torch.randn(5, 6).double()
        optimizer.zero_grad()
        (net(first) - 2 * net(second)).square().mean().backward()
        optimizer.step()
    return [*net.parameters()]


@pytest.mark.parametrize("eager", [False, True])
def test_at_lambda_one_training_is_that_of_backpropagation(eager):
    expected = train(network())
    found = train(DNI(network(), eager=eager, unlock="update", bp_lambda=1.0))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_eager_training_equals_the_default_one_at_fixed_units(monkeypatch):
    """Only the running unit differs: the default way counts the passes one after the other."""
    monkeypatch.setattr(RunningScale, "apply", lambda self, update: lambda: None)
    found = []
    for eager in (False, True):
        torch.manual_seed(2)
        net = DNI(network(), eager=eager, unlock="update", example_input=torch.randn(2, 6).double())
        fix_units(net)
        found.append(train(net))
        assert {stats.updates for stats in net.stats().values()} == {12}
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
