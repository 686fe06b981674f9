"""Temporal interfaces: the gradient of the future at the states that windows hand on."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    backward,
    defer_backward,
    DNI,
    Future,
    TemporalInterface,
)
from tests.support.recurrent_zoo import (
    data,
    detached,
    NETWORKS,
    rebuilt,
    Sequence,
    side_by_side,
    tensors,
)
from tests.support.temporal_windows import pair

EXACT = Future(factor=1.0, bound=None, guard=False)


class Oracle(nn.Module):
    """Knows the gradient of the future at each state."""

    normalize_target = False

    def __init__(self, known):
        super().__init__()
        self.known = known

    def forward(self, trigger, context):
        for state, gradient in self.known:
            if state.shape == trigger.shape and torch.allclose(state, trigger, atol=1e-12):
                return gradient
        raise AssertionError("a state that full backpropagation does not know")


def full_backpropagation(network, pairs, name):
    """Gradients of the sum of all losses, and those that the future sends to each state."""
    losses, handed, state = [], [], None
    for x, y in pairs:
        out, state = network(x, state)
        losses.append(F.mse_loss(out, y))
        # What is handed on, apart from what the window itself reads of it.
        state = rebuilt(state, iter([t.clone() for t in tensors(state)]))
        handed.append(state)
    for one in handed:
        for t in tensors(one):
            t.retain_grad()
    network.zero_grad()
    sum(losses).backward()
    known = []
    for one in handed[:-1]:
        grads = rebuilt(one, iter([t.grad for t in tensors(one)]))
        known.append((side_by_side(one, name).detach(), side_by_side(grads, name)))
    last = side_by_side(handed[-1], name).detach()
    known.append((last, torch.zeros_like(last)))
    return known


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("repackaged", [False, True])
def test_with_an_oracle_windows_are_full_backpropagation(name, repackaged):
    build, recurrent = NETWORKS[name]
    network, pairs = build().double(), data()
    bare = copy.deepcopy(network)
    known = full_backpropagation(bare, pairs, name)
    net = DNI(network, recurrent=recurrent, future=EXACT, dni_network=lambda *_: Oracle(known))
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
@pytest.mark.parametrize("off", [{"future": Future(factor=0)}, {"bp_lambda": 1.0}])
def test_without_a_factor_it_is_truncated_backpropagation_to_the_bit(name, off):
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


def agree(network, net, reference, grads):
    for weight, grad in zip((network.core.u, network.core.w, network.v), grads, strict=True):
        torch.testing.assert_close(weight.weight.grad, grad.t(), rtol=1e-9, atol=1e-13)
    if reference.windows > 1:
        last = net.interfaces["core.state"].synthesizer.layers.last
        torch.testing.assert_close(last.weight.detach(), reference.future.a.t())
        torch.testing.assert_close(last.bias.detach(), reference.future.b)


def test_bootstrap_units_bound_and_probes_follow_the_paper():
    network, net, reference = pair()
    everybody, nobody = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)
    state = torch.randn(5, 4, dtype=torch.float64)
    sent = 0
    for x, y in data(20):
        expected_state, grads = reference.window(state.detach(), x, y, everybody, everybody, nobody)
        net.zero_grad()
        out, state = net(x, state)
        sum(F.mse_loss(o, t) for o, t in zip(out, y, strict=True)).backward()
        torch.testing.assert_close(state.detach(), expected_state)
        agree(network, net, reference, grads)
        sent += reference.future.a.abs().sum() > 0
    assert sent > 10


def test_ends_of_sequences_follow_the_reference():
    """Flagged, seen by another state, and padded: sample by sample."""
    network, net, reference = pair()
    state = torch.randn(5, 4, dtype=torch.float64)
    flagged = torch.zeros(5, dtype=torch.bool)
    dead = torch.zeros(5, dtype=torch.bool)
    handed = torch.ones(5, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    for i, (x, y) in enumerate(data(30)):
        counts = ~dead
        if i:
            # Some sequences end and begin anew: a few of them without having been flagged.
            fresh = torch.rand(5, generator=generator) < 0.3
            state = torch.where(fresh[:, None], torch.zeros_like(state), state)
            handed = ~fresh & ~flagged & ~dead
            dead = ~fresh & (flagged | dead)
        flagged = torch.rand(5, generator=generator) < 0.2
        _, grads = reference.window(state.detach(), x, y, handed, counts, flagged | dead)
        net.zero_grad()
        out, state = net(x, state)
        net.end_of_sequence(flagged)
        sum(F.mse_loss(o, t) for o, t in zip(out, y, strict=True)).backward()
        agree(network, net, reference, grads)


def test_a_state_that_is_not_handed_on_teaches_that_there_is_no_future():
    torch.manual_seed(0)
    net = DNI(Sequence(nn.LSTM), grad_lr=0.0)
    x = torch.randn(3, 5, 3)
    taught = []

    def watch(prediction, message, counts=None):
        taught.append((message, counts))
        return lesson(prediction, message, counts)

    net(x, net(x, None)[1])[0].sum().backward()
    interface = net.interfaces["core.state"]
    lesson, interface.lesson = interface.lesson, watch
    assert interface.stats().updates == 1
    out, state = net(x, None)
    out.sum().backward()
    assert not taught[0][0].any()
    out, _ = net(x, state)
    out.sum().backward()
    assert taught[1][0].all()
    out, _ = net(x[:, :2], tuple(s[:, :2] for s in state))  # a smaller batch goes on
    out.sum().backward()
    assert not taught[2][0].any()  # that state was of the window before the last
    out, state = net(x, None)
    net.end_of_sequence()
    out.sum().backward()
    out, _ = net(x, state)
    out.sum().backward()
    assert not taught[-1][0].any()


def test_a_batch_that_shrinks_goes_on_with_its_first_samples():
    torch.manual_seed(0)
    net = DNI(Sequence(nn.GRU), grad_lr=0.0)
    taught, x = [], torch.randn(3, 5, 3)
    out, state = net(x, None)
    out.sum().backward()
    interface = net.interfaces["core.state"]
    lesson = interface.lesson
    interface.lesson = lambda p, m, c=None: taught.append(m) or lesson(p, m, c)
    out, state = net(x[:, :3], state[:, :3].contiguous())
    out.sum().backward()
    assert taught[0].shape == (5, 8)
    assert taught[0][:3].all()
    assert not taught[0][3:].any()
    out, _ = net(x[:, :4], torch.cat([state, torch.zeros(2, 1, 4)], 1))
    out.sum().backward()
    assert taught[1].shape == (3, 8)
    assert taught[1].all()


@pytest.mark.parametrize("kind", ["lstm", "gru cell", "own"])
def test_by_hand_and_wrapped_are_equal(kind):
    build, recurrent = NETWORKS[kind]
    network = build()
    wrapped = DNI(copy.deepcopy(network), recurrent=recurrent)
    first = data(1)[0][0].float()
    wrapped(first, None)
    like = wrapped.interfaces["core.state"]
    future = TemporalInterface(
        copy.deepcopy(like.synthesizer), batch_dim=-2 if kind != "own" else 0
    )
    nets = [wrapped, network]
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-2) for net in nets]
    states = [None, None]
    for x, y in data(40):
        optimizers[0].zero_grad()
        out, states[0] = wrapped(x.float(), states[0])
        F.mse_loss(out, y.float()).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        with defer_backward():
            begin = None if states[1] is None else future.make_trigger(states[1])
            out, states[1] = network(x.float(), begin)
            backward(F.mse_loss(out, y.float()))
            future.backward(states[1])
        optimizers[1].step()
    assert like.stats() == future.stats()
    assert like.stats().updates > 30
    for ours, theirs in zip(wrapped.network.parameters(), network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
