"""What the tests of eager learning share."""

import copy

import pytest
import torch

from pytorch_dni import DNI, synthesizer_context
from tests.support.zoo import ZOO

# Behind their default places: with a skip connection around, a branch, or a layer called twice.
ELSEWHERE = {
    "residual": "stem",
    "transformer": ["embedding", "blocks.layers.*"],
    "shared": "stem",
    "branches": "body",
}


def nets(name, **options):
    """The same network twice: the default way, and eagerly."""
    options = {"layers": ELSEWHERE.get(name), "recurrent": False, **options}
    torch.manual_seed(0)
    network = ZOO[name].build()
    made = []
    for eager in (False, True):
        torch.manual_seed(3)
        made.append(DNI(copy.deepcopy(network), eager=eager, **options))
    return made


def train(net, inputs, loss, labels=None, lr=0.05):
    torch.manual_seed(3)  # of synthesizers too, where they are made now
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    for x in inputs:
        optimizer.zero_grad()
        with synthesizer_context(labels):
            out = net(x)
        loss(out).backward()
        optimizer.step()


def agree(a, b):
    for ours, theirs in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert {n: s.updates for n, s in a.stats().items()} == {
        n: s.updates for n, s in b.stats().items()
    }
    for name, stats in a.stats().items():
        assert stats.loss == pytest.approx(b.stats()[name].loss, rel=1e-3, abs=1e-6)
