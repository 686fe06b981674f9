"""Lessons over several windows, whatever their target: loops, copies, misuse."""

import copy
import pickle

import pytest
import torch
from torch import nn

from pytorch_dni import (
    Critic_DNI,
    DNI,
    DNIError,
    Future,
    Linear_DNI,
    SynthesizerError,
    TemporalInterface,
)
from pytorch_dni.recurrent._traces import Traces
from tests.support.horizon_windows import FACTOR, run, unjoined, window_loss, wrapped
from tests.support.recurrent_zoo import data, detached, Loop, NETWORKS, Sequence, side_by_side


@pytest.mark.parametrize("target", ["returns", "traces"])
def test_a_window_that_was_left_alone_learns_with_what_it_was_not_sent(target, monkeypatch):
    taught = []
    teach, trace = TemporalInterface.teach, Traces._teach

    def noted(self, state, context, true, counts):
        taught.append(true)
        return teach(self, state, context, true, counts)

    def traced(self, kept, targets):
        taught.extend(targets.values())
        trace(self, kept, targets)

    monkeypatch.setattr(TemporalInterface, "teach", noted)
    monkeypatch.setattr(Traces, "_teach", traced)
    torch.manual_seed(1)
    bare = Sequence(nn.GRU).double()
    future = Future(FACTOR, None, probe=3, guard=False, target=target, windows=2, lambda_=0.5)
    net = DNI(copy.deepcopy(bare), future=future, dni_network=Linear_DNI,
              dni_params={"norm": None}, grad_optim="sgd", grad_lr=0.3)  # fmt: skip
    pairs = data(windows=3)
    states, state = run(net, pairs)
    interface = net.interfaces["core.state"]
    for parameter in interface.synthesizer.parameters():
        nn.init.normal_(parameter, std=0.5)  # it starts at zero: nothing would be told
    told = interface.foretell(side_by_side(state, "gru").detach(), None)
    net(pairs[0][0], state)
    leaf = side_by_side(states[2], "gru").detach().requires_grad_()
    out, last = bare(pairs[2][0], unjoined(leaf, states[2], "gru"))
    total = window_loss(out, pairs[2][1]) + (FACTOR * told * side_by_side(last, "gru")).sum()
    (goal,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(taught[-1], goal, rtol=1e-9, atol=1e-13)
    assert told.any()


@pytest.mark.parametrize("target", [{"target": "returns", "windows": 1}, {"target": "traces"}])
@pytest.mark.parametrize("name", ["lstm", "gru cell"])
def test_at_lambda_0_it_is_the_bootstrap(name, target):
    build, recurrent = NETWORKS[name]
    torch.manual_seed(1)
    network = build().double()
    common = {"factor": 0.7, "bound": 0.5, "probe": 10**9}
    nets = [
        DNI(
            copy.deepcopy(network),
            recurrent=recurrent,
            future=Future(**common, **given, lambda_=0.0),
            dni_network=Linear_DNI,
            dni_params={"norm": None},
            grad_lr=1e-2,
        )
        for given in ({}, target)
    ]
    for net in nets:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        state = None
        for i, (x, y) in enumerate(data(windows=20)):
            out, state = net(x, state)
            if i % 4 == 2:
                net.end_of_sequence(torch.tensor([True, False, False, True, False]))
            optimizer.zero_grad()
            window_loss(out, y).backward()
            optimizer.step()
    for ours, theirs in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert nets[1].stats()["core.state"].cosine == pytest.approx(
        nets[0].stats()["core.state"].cosine
    )


class Noisy(Sequence):
    """Random numbers, and buffers that running changes."""

    def __init__(self):
        super().__init__(nn.GRU)
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, x, state=None):
        return super().forward(self.drop(self.norm(x.flatten(0, 1)).view_as(x)), state)


@pytest.mark.parametrize("target", ["bootstrap", "returns", "traces"])
def test_a_window_that_overflows_teaches_nothing(target):
    torch.manual_seed(1)
    future = Future(1.0, None, guard=False, target=target, windows=2)
    net = DNI(Sequence(nn.GRU).double(), future=future, dni_network=Linear_DNI,
              dni_params={"norm": None})  # fmt: skip
    state = None
    for i, (x, y) in enumerate(data(windows=8)):
        out, state = net(x, state)
        (window_loss(out, y) * (torch.inf if i == 3 else 1)).backward()
        state = detached(state)
    synthesizer = net.interfaces["core.state"].synthesizer
    assert all(parameter.isfinite().all() for parameter in synthesizer.parameters())
    assert synthesizer.layers.last.weight.any()


@pytest.mark.parametrize("target", ["returns", "traces"])
def test_running_again_is_not_seen_from_outside(target):
    torch.manual_seed(1)
    bare = Noisy()
    net = DNI(
        copy.deepcopy(bare),
        future=Future(factor=1.0, target=target, windows=2),
        dni_network=Linear_DNI,
        dni_params={"norm": None},
    )
    outs = []
    for one in (bare, net):
        torch.manual_seed(7)
        state, own = None, []
        for x, _ in data(windows=6):
            out, state = one(x.float(), state)
            out.square().mean().backward()
            state = state.detach()
            own.append(out.detach())
        outs.append(own)
    for ours, theirs in zip(*outs, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(net.network.buffers(), bare.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    # Under the random numbers that the window had: what is run again is what ran.
    horizon = net._windows.horizon
    record = horizon._record
    assert torch.equal(
        horizon.again(record).last["core.state"], record.left["core.state"].kept.state
    )


@pytest.mark.parametrize("target", ["returns", "traces"])
def test_windows_that_are_left_out_and_batches_that_change(target):
    _, net = wrapped("lstm cell", target, windows=3)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    state = None
    for i, (x, y) in enumerate(data(windows=12)):
        if i == 7:
            x, y, state = x[:, :3], y[:, :3], tuple(s[:3] for s in state)
        if i > 7:
            x, y = x[:, :3], y[:, :3]
        out, state = net(x, state)
        if i % 5 == 3:
            continue  # no backward pass
        optimizer.zero_grad()
        window_loss(out, y).backward()
        optimizer.step()
        assert all(p.isfinite().all() for p in net.parameters())
    assert net.stats()["core.state"].updates > 4


@pytest.mark.parametrize("target", ["bootstrap", "returns", "traces"])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_and_checkpoints_go_on(target, how):
    def fresh():
        torch.manual_seed(2)
        future = Future(target=target, auxiliary=0.5, windows=2)
        return DNI(Loop(nn.LSTMCell), future=future, dni_params={"norm": None},
                   dni_network=Linear_DNI)  # fmt: skip

    def on(net, pairs, state):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in pairs:
            out, state = net(x.float(), state)
            optimizer.zero_grad()
            window_loss(out, y.float()).backward()
            optimizer.step()
            state = detached(state)
        return state

    pairs, net = data(windows=9), fresh()
    state = on(net, pairs[:5], None)
    copied = how(net)
    loaded = fresh()
    loaded.load_state_dict(net.state_dict())
    for one in (copied, loaded):
        on(one, pairs[5:], state)
    for ours, theirs in zip(copied.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    if target == "bootstrap":
        on(net, pairs[5:], state)
        for ours, theirs in zip(copied.parameters(), net.parameters(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"target": "future"}, "target must be one of"),
        ({"windows": 0}, "windows must be at least 1"),
        ({"lambda_": 1.5}, "lambda_ from 0 to 1"),
        ({"auxiliary": -1}, "auxiliary not negative"),
    ],
)
def test_a_wrong_future(wrong, told):
    with pytest.raises(DNIError, match=told):
        Future(**wrong)


def test_misuse_is_one_clear_error():
    x = torch.randn(3, 5, 3)
    for target, kind, params in (
        ("traces", Linear_DNI, {"norm": "batch"}),
        ("traces", Critic_DNI, {}),
        ("returns", Critic_DNI, {}),
    ):
        net = DNI(Sequence(nn.GRU), future=Future(target=target), dni_network=kind,
                  dni_params=params)  # fmt: skip
        with pytest.raises(SynthesizerError, match=r"core\.state.*(norm|critic)"):
            net(x)
        assert not net.interfaces
    with pytest.raises(DNIError, match="cuts in space"):
        DNI(Sequence(nn.GRU), layers="core", recurrent=True, future=Future(target="returns"))
    by_hand = TemporalInterface(Linear_DNI(4, 4, 4), future=Future(target="returns"))
    with pytest.raises(DNIError, match="takes the wrapper"):
        by_hand.make_trigger(torch.randn(5, 4))
    with pytest.raises(SynthesizerError, match="output_size"):
        TemporalInterface(nn.Linear(4, 4), future=Future(auxiliary=1.0))
