"""Helpers for the tests of eager learning."""

import copy

import pytest
import torch

from pytorch_dni import DNI, synthesizer_context
from tests.support.zoo import ZOO

# The default places do not separate these networks: a skip connection passes around them, the
# network branches there, or the layer runs twice.
LAYERS = {
    "residual": "stem",
    "transformer": ["embedding", "blocks.layers.*"],
    "shared": "stem",
    "branches": "body",
}


def default_and_eager(name, **options):
    """Return the same network wrapped twice: the default way, and eagerly."""
    options = {"layers": LAYERS.get(name), "recurrent": False, "unlock": "update", **options}
    torch.manual_seed(0)
    network = ZOO[name].build()
    nets = []
    for eager in (False, True):
        torch.manual_seed(3)
        nets.append(DNI(copy.deepcopy(network), eager=eager, **options))
    return nets


def train(net, inputs, loss, labels=None, lr=0.05):
    torch.manual_seed(3)  # Synthesizers may be made in the first step.
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    for x in inputs:
        optimizer.zero_grad()
        with synthesizer_context(labels):
            out = net(x)
        loss(out).backward()
        optimizer.step()


def assert_same_training(a, b):
    """Compare the parameters and the statistics of two wrappers."""
    for ours, theirs in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert {n: s.updates for n, s in a.stats().items()} == {
        n: s.updates for n, s in b.stats().items()
    }
    for name, stats in a.stats().items():
        assert stats.loss == pytest.approx(b.stats()[name].loss, rel=1e-3, abs=1e-6)
