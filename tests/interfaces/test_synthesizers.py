"""Interfaces take every kind of synthesizer, and the user's own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    DNI,
    synthesizer_context,
)
from tests.support.primitives import activation, batchnorm_mlp, every_kind


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize("kind", [*every_kind()])
def test_every_kind_of_synthesizer_learns(kind, optim):
    interface, shape = every_kind(optim)[kind]
    labels = torch.randint(0, 3, (4,))
    before = copy.deepcopy([*interface.synthesizer.parameters()])
    optimizer = None if optim else torch.optim.Adam(interface.parameters(), lr=1e-2)
    for _ in range(3):
        h = torch.randn(shape, requires_grad=True)
        with synthesizer_context(labels):
            out = interface(h)
        (out * torch.randn(shape)).sum().backward()
        assert h.grad.isfinite().all()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
    assert interface.stats().updates == 3
    assert (interface.hidden is not None) == (kind == "rnn")
    after = [*interface.synthesizer.parameters()]
    assert any(not torch.equal(b, a) for b, a in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)


def test_a_users_synthesizer_gets_the_context_raw_or_encoded():
    class Recording(nn.Module):
        def forward(self, trigger, context):
            given.append(context)
            return torch.zeros_like(trigger)

    class Sized(Recording):
        context_dim = 3
        feature_dim = 1

    given, labels = [], torch.tensor([0, 2])
    with synthesizer_context(labels):
        BackwardInterface(Recording()).receive(torch.randn(2, 4))
        BackwardInterface(Sized()).receive(torch.randn(2, 4, 5))
    BackwardInterface(Recording()).receive(torch.randn(2, 4))
    assert torch.equal(given[0], labels)
    assert torch.equal(given[1], F.one_hot(labels, 3).float()[:, :, None].expand(2, 3, 5))
    assert given[2] is None
    net = DNI(batchnorm_mlp(), dni_network=lambda name, module, output: Recording())
    with synthesizer_context(labels):
        net(torch.randn(2, 6)).sum().backward()
    assert torch.equal(given[-1], labels)


def test_a_synthesizer_without_context_dim_ignores_the_context():
    cut = BidirectionalInterface(
        BasicSynthesizer(5, trigger_dim=3), BasicSynthesizer(5, context_dim=4)
    )
    with synthesizer_context(torch.tensor([0, 1, 2, 3, 0, 1])):
        cut(activation(6, 5), torch.randn(6, 3)).sum().backward()
    assert cut.stats().updates == 1
