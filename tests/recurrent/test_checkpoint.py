"""Checkpoints and copies of recurrent networks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, FutureGradient, synthesizer_context
from tests.support.checkpoints import through_file
from tests.support.recurrent_zoo import data, detached, NETWORKS, Sequence, tensors


@pytest.mark.parametrize("name", ["lstm", "gru cell", "own"])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy"])
@pytest.mark.parametrize("context", [None, 3])
def test_resumed_training_equals_uninterrupted_training(name, how, context):
    build, recurrent = NETWORKS[name]
    network = build()
    options = {"recurrent": recurrent, "context_size": context, "future": FutureGradient(probe=3)}
    net = DNI(copy.deepcopy(network), **options)

    def train(net, pairs, state):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for i, (x, y) in enumerate(pairs):
            with synthesizer_context(torch.full((5,), i % 3) if context else None):
                out, state = net(x.float(), state)
            if i % 4 == 3:
                net.end_of_sequence(torch.tensor([1, 0, 0, 1, 0]))
            optimizer.zero_grad()
            F.mse_loss(out, y.float()).backward()
            optimizer.step()
        return detached(state)

    pairs = data(20)
    state = train(net, pairs[:9], None)
    if how == "deepcopy":
        other = copy.deepcopy(net)
    else:
        other = DNI(copy.deepcopy(network), **options)
        other.load_state_dict(through_file(net.state_dict()))
    ends = [train(one, pairs[9:], state) for one in (net, other)]
    for ours, theirs in zip(*(tensors(end) for end in ends), strict=True):
        assert torch.equal(ours, theirs)
    assert net.stats() == other.stats()


def test_a_checkpoint_may_be_loaded_after_a_failed_window():
    network, pairs = Sequence(nn.GRU), data(12)

    def train(net, pairs, state):
        for x, y in pairs:
            out, state = net(x.float(), state)
            F.mse_loss(out, y.float()).backward()
        return detached(state)

    net = DNI(copy.deepcopy(network))
    state = train(net, pairs[:5], None)
    saved = copy.deepcopy(net.state_dict())
    later = train(net, pairs[5:8], state)
    with pytest.raises(RuntimeError, match="size"):
        net(pairs[8][0].float()[..., :2], later)
    fresh = DNI(copy.deepcopy(network))
    for one in (net, fresh):
        one.load_state_dict(saved)
        train(one, pairs[8:], state)
    assert net.stats() == fresh.stats()


@pytest.mark.parametrize(
    ("unlock", "order"),
    [
        ("update", ["head", "core.state", "extra"]),
        # The gradient at the last cut of the first pass, the head, is the error.
        ("backward", ["core.state", "extra"]),
    ],
)
def test_a_checkpoint_keeps_cuts_that_were_placed_late(unlock, order):
    class Late(Sequence):
        def __init__(self):
            super().__init__(nn.GRU)
            self.extra = nn.Linear(2, 2)

        def forward(self, x, state=None, late=False):
            out, state = super().forward(x, state)
            return (self.extra(out) if late else out), state

    def train(net, steps):
        state = None
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        torch.manual_seed(1)
        for i in range(steps):
            out, state = net(torch.randn(3, 5, 3), state, i > 3)
            optimizer.zero_grad()
            out.square().mean().backward()
            optimizer.step()

    options = {"layers": ["head", "extra"], "recurrent": True, "unlock": unlock}
    network = Late()
    net = DNI(copy.deepcopy(network), **options)
    train(net, 9)
    assert net._rooms.learner.state_dict()["order"] == order
    other = DNI(copy.deepcopy(network), **options)
    other.load_state_dict(net.state_dict())
    for one in (net, other):
        train(one, 7)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
