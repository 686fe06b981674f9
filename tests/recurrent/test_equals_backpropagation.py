"""Windows with exact predictions equal full backpropagation; without any, truncated."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, FutureGradient
from tests.support.recurrent_zoo import data, detached, NETWORKS, rebuilt, side_by_side, tensors

EXACT = FutureGradient(factor=1.0, bound=None, guard=False)


class ExactFuture(nn.Module):
    """Returns the gradient that later windows send to a state."""

    normalize_target = False

    def __init__(self, known):
        super().__init__()
        self.known = known

    def forward(self, trigger, context):
        for state, gradient in self.known:
            if state.shape == trigger.shape and torch.allclose(state, trigger, atol=1e-12):
                return gradient
        raise AssertionError("full backpropagation did not reach this state")


def full_backpropagation(network, pairs, name):
    """Backpropagate the sum of all losses; return the states and the gradients sent to them."""
    losses, passed_on, state = [], [], None
    for x, y in pairs:
        out, state = network(x, state)
        losses.append(F.mse_loss(out, y))
        # A clone separates the gradient of later windows from that of the window itself.
        state = rebuilt(state, iter([t.clone() for t in tensors(state)]))
        passed_on.append(state)
    for one in passed_on:
        for t in tensors(one):
            t.retain_grad()
    network.zero_grad()
    sum(losses).backward()
    known = []
    for one in passed_on[:-1]:
        grads = rebuilt(one, iter([t.grad for t in tensors(one)]))
        known.append((side_by_side(one, name).detach(), side_by_side(grads, name)))
    last = side_by_side(passed_on[-1], name).detach()
    known.append((last, torch.zeros_like(last)))
    return known


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("repackaged", [False, True])
def test_exact_predictions_give_full_backpropagation(name, repackaged):
    build, recurrent = NETWORKS[name]
    network, pairs = build().double(), data()
    bare = copy.deepcopy(network)
    known = full_backpropagation(bare, pairs, name)
    net = DNI(network, recurrent=recurrent, future=EXACT, dni_network=lambda *_: ExactFuture(known))
    state = None
    for x, y in pairs:
        out, state = net(x, state)
        F.mse_loss(out, y).backward()
        state = detached(state) if repackaged else state
    for ours, theirs in zip(network.parameters(), bare.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13)
    (stats,) = net.stats().values()
    assert stats.updates == 3
    assert stats.loss < 1e-20


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("off", [{"future": FutureGradient(factor=0)}, {"bp_lambda": 1.0}])
def test_factor_zero_is_truncated_backpropagation_to_the_bit(name, off):
    build, recurrent = NETWORKS[name]
    network = build()
    bare = copy.deepcopy(network)
    net = DNI(network, recurrent=recurrent, **off)
    states = [None, None]
    optimizers = [torch.optim.Adam(n.parameters(), lr=1e-2) for n in (net, bare)]
    for x, y in data(12):
        for i, one in enumerate((net, bare)):
            state = detached(states[1]) if i and states[1] is not None else states[i]
            out, states[i] = one(x.float(), state)
            optimizers[i].zero_grad()
            F.mse_loss(out, y.float()).backward()
            optimizers[i].step()
        for ours, theirs in zip(network.parameters(), bare.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    assert [*net.stats()] == ["core.state"]
    assert net.stats()["core.state"].updates == 11
