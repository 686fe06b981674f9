"""Lessons over several windows: lambda-returns, eligibility traces, and the auxiliary task."""

import copy
import pickle

import pytest
import torch
from recurrent_zoo import data, detached, Loop, NETWORKS, rebuilt, Sequence, side_by_side, tensors
from torch import nn
from torch.nn import functional as F

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

LAMBDA, FACTOR = 0.7, 0.8


class Plain_DNI(Linear_DNI):
    """In the gradients' own units, so that all can be written out."""

    normalize_target = False

    def __init__(self, *sizes, num_layers=0):
        super().__init__(*sizes, num_layers=num_layers, norm=None)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)


class Sum(torch.optim.Optimizer):
    """Adds up what would be learned."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        self.steps = 0

    def step(self):
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                total = self.state[parameter].setdefault("sum", torch.zeros_like(parameter))
                if parameter.grad is not None:
                    total += parameter.grad


def window_loss(out, y):
    return F.mse_loss(out, y)


def returns(network, states, pairs, predict, lambda_, factor, name, future):
    """G[k], from the last window to the first, by the equation; ``future`` is that after all."""
    goals, after = [], future
    for k in reversed(range(len(pairs))):
        leaf = side_by_side(states[k], name).detach().requires_grad_()
        out, state = network(pairs[k][0], unjoined(leaf, states[k], name))
        last = side_by_side(state, name)
        told = predict(last.detach())
        message = told if after is None else (1 - lambda_) * told + lambda_ * after
        total = window_loss(out, pairs[k][1]) + (factor * message * last).sum()
        (after,) = torch.autograd.grad(total, leaf)
        goals.append(after)
    return goals[::-1]


def unjoined(leaf, like, name):
    """The state whose tensors stand side by side in ``leaf``."""
    place = 0

    def next_tensor():
        nonlocal place
        for t in tensors(like):
            by_sample = t.transpose(0, 1) if name in ("lstm", "gru", "rnn") else t
            size = by_sample[0].numel()
            part = leaf[:, place : place + size].reshape(by_sample.shape)
            place += size
            yield part.transpose(0, 1).contiguous() if name in ("lstm", "gru", "rnn") else part

    return rebuilt(like, next_tensor())


def run(net, pairs, state=None):
    """Windows, each backpropagated; the states that they began with."""
    states = []
    for x, y in pairs:
        states.append(state)
        out, state = net(x, state)
        window_loss(out, y).backward()
        state = detached(state)
    return states, state


@pytest.fixture
def lessons(monkeypatch):
    """What synthesizers are taught, in order."""
    taught, teach = [], TemporalInterface.teach

    def noted(self, state, context, true, counts):
        taught.append((state, true, counts))
        return teach(self, state, context, true, counts)

    def ended(self, state, context, counts):
        taught.append((state, torch.zeros_like(state), counts))
        return end(self, state, context, counts)

    end = TemporalInterface.end_lesson
    monkeypatch.setattr(TemporalInterface, "teach", noted)
    monkeypatch.setattr(TemporalInterface, "end_lesson", ended)
    return taught


def wrapped(name, target, num_layers=0, **given):
    torch.manual_seed(1)
    build, recurrent = NETWORKS[name]
    options = {"factor": FACTOR, "bound": None, "guard": False, **given}
    future = Future(target=target, **options)
    bare = build().double()
    net = DNI(
        copy.deepcopy(bare),
        recurrent=recurrent,
        future=future,
        dni_network=Plain_DNI,
        dni_params={"num_layers": num_layers},
        grad_optim=Sum,
    )
    return bare, net


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("lambda_", [0.0, LAMBDA, 1.0])
def test_lambda_returns_follow_the_equation(name, lambda_, lessons):
    bare, net = wrapped(name, "returns", windows=3, lambda_=lambda_)
    pairs = data(windows=7)
    states, state = run(net, pairs)
    assert len(lessons) == 3  # windows 1 to 3; those of 4 to 6 come when the next one begins
    net(pairs[0][0], state)
    synthesizer = net.interfaces["core.state"].synthesizer
    predict = lambda s: synthesizer(s, None)[0].detach()  # noqa: E731
    for block in (slice(1, 4), slice(4, 7)):
        goals = returns(bare, states[block], pairs[block], predict, lambda_, FACTOR, name, None)
        for begun, goal in zip(states[block], goals, strict=True):
            taught, true, counts = lessons.pop(0)
            torch.testing.assert_close(taught, side_by_side(begun, name), rtol=0, atol=0)
            torch.testing.assert_close(true, goal, rtol=1e-9, atol=1e-13)
            assert counts.all()
    assert not lessons


@pytest.mark.parametrize("name", NETWORKS)
def test_over_a_whole_sequence_returns_are_full_backpropagation(name, lessons):
    bare, net = wrapped(name, "returns", factor=1.0, windows=9, lambda_=1.0)
    pairs = data(windows=4)
    states, _ = run(net, pairs)
    net(pairs[0][0])  # no state: the sequence has ended
    net(pairs[0][0])
    begun = side_by_side(states[1], name)
    total, state = 0.0, unjoined(begun.requires_grad_(), states[1], name)
    wanted = [begun]
    for x, y in pairs[1:]:
        out, state = bare(x, state)
        total = total + window_loss(out, y)
        joined = side_by_side(state, name)
        wanted.append(joined)
        state = unjoined(joined, state, name)
    goals = torch.autograd.grad(total, wanted[:-1])
    for goal, (_, true, _) in zip(goals, lessons, strict=False):
        torch.testing.assert_close(true, goal, rtol=1e-9, atol=1e-13)
    assert len(lessons) == 4
    assert not lessons[-1][1].any()  # the state that nobody took has no future


def sums(net):
    """What the synthesizers would have learned."""
    (interface,) = net.interfaces.values()
    state = interface.learner.optimizer.state
    return [state[parameter]["sum"] for parameter in interface.synthesizer.parameters()]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num_layers", [0, 1])
@pytest.mark.parametrize("ends", [False, True])
def test_traces_add_up_to_lambda_returns(name, num_layers, ends):
    bare, net = wrapped(name, "traces", num_layers=num_layers, lambda_=LAMBDA)
    pairs = data(windows=6)
    states, state = run(net, pairs)
    for _ in range(2):  # the lessons of a window come when the next one begins
        _, state = net(pairs[0][0], None if ends else state)
    synthesizer = net.interfaces["core.state"].synthesizer
    predict = lambda s: synthesizer(s, None)[0].detach()  # noqa: E731
    future = None
    begun = [side_by_side(one, name).detach() for one in states[1:]]
    if ends:  # the last state has no future: what is predicted there is an error
        future = torch.zeros_like(begun[0])
    goals = returns(bare, states[1:], pairs[1:], predict, LAMBDA, FACTOR, name, future)
    if ends:
        last = bare(pairs[-1][0], states[-1])[1]
        begun, goals = [*begun, side_by_side(last, name).detach()], [*goals, future]
    wanted = [torch.zeros_like(p) for p in synthesizer.parameters()]
    for one, goal in zip(begun, goals, strict=True):
        output = synthesizer(one, None)[0]
        grads = torch.autograd.grad(F.mse_loss(output, goal), [*synthesizer.parameters()])
        wanted = [w + g for w, g in zip(wanted, grads, strict=True)]
    for ours, theirs in zip(sums(net), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_traces_begin_anew_behind_a_window_that_was_not_backpropagated():
    bare, net = wrapped("gru", "traces", lambda_=LAMBDA)
    pairs = data(windows=7)
    states, state = run(net, pairs[:3])
    states.append(state)
    _, state = net(pairs[3][0], state)  # no backward pass
    more, state = run(net, pairs[4:], state.detach())
    net(pairs[0][0], state)
    synthesizer = net.interfaces["core.state"].synthesizer
    predict = lambda s: synthesizer(s, None)[0].detach()  # noqa: E731
    wanted = [torch.zeros_like(p) for p in synthesizer.parameters()]
    for begun, part in ((states[1:3], pairs[1:3]), (more, pairs[4:])):
        goals = returns(bare, begun, part, predict, LAMBDA, FACTOR, "gru", None)
        for one, goal in zip(begun, goals, strict=True):
            output = synthesizer(side_by_side(one, "gru").detach(), None)[0]
            grads = torch.autograd.grad(F.mse_loss(output, goal), [*synthesizer.parameters()])
            wanted = [w + g for w, g in zip(wanted, grads, strict=True)]
    for ours, theirs in zip(sums(net), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


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


def test_samples_that_end_within_a_block_have_no_future(lessons):
    over = torch.tensor([False, True, False, False, True])
    bare, net = wrapped("lstm", "returns", factor=1.0, windows=9, lambda_=1.0)
    pairs = data(windows=3)
    state, states = None, []
    for i, (x, y) in enumerate(pairs):
        states.append(state)
        out, state = net(x, state)
        if i == 1:
            net.end_of_sequence(over)
        window_loss(out, y).backward()
        state = tuple(s.detach() * (1 if i != 1 else ~over.view(1, -1, 1)) for s in state)
    net(pairs[0][0])
    net(pairs[0][0])
    begun = [side_by_side(one, "lstm").detach().requires_grad_() for one in states[1:]]
    out, last = bare(pairs[1][0], unjoined(begun[0], states[1], "lstm"))
    kept = side_by_side(last, "lstm") * ~over.unsqueeze(1)
    more, _ = bare(pairs[2][0], unjoined(kept, states[2], "lstm"))
    total = window_loss(out, pairs[1][1]) + window_loss(more, pairs[2][1])
    (goal,) = torch.autograd.grad(total, begun[0])
    torch.testing.assert_close(lessons[0][1], goal, rtol=1e-9, atol=1e-13)
    assert not lessons[1][1][over].any()
    assert lessons[1][1][~over].any()


class Noisy(Sequence):
    """Random numbers, and buffers that running changes."""

    def __init__(self):
        super().__init__(nn.GRU)
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, x, state=None):
        return super().forward(self.drop(self.norm(x.flatten(0, 1)).view_as(x)), state)


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


def test_inputs_may_be_changed_in_place(lessons):
    taught = []
    for reuse in (False, True):
        _, net = wrapped("gru", "returns", windows=3, lambda_=1.0)
        state = None
        buffer = torch.empty(3, 5, 3, dtype=torch.float64)
        for x, y in data(windows=5):
            out, state = net(buffer.copy_(x) if reuse else x, state)
            window_loss(out, y).backward()
            state = state.detach()
        taught.append([true for _, true, _ in lessons])
        lessons.clear()
    for ours, theirs in zip(*taught, strict=True):
        assert torch.equal(ours, theirs)


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


def test_the_auxiliary_task_by_the_equation():
    torch.manual_seed(0)
    interface = TemporalInterface(
        Linear_DNI(6, 8, 6, norm=None),
        future=Future(factor=1.0, bound=None, auxiliary=0.3, probe=10**9, guard=False),
        optim=Sum,
    )
    interface.double()
    interface.scale.measure(torch.full((2, 6), 0.5, dtype=torch.float64))  # the unit: a half
    for module in (interface.synthesizer, interface.auxiliary):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    first, last, own = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    counts = torch.tensor([True, True, False, True])
    told = interface.send_back(last, None)
    true = interface.take_in(first, own, counts, None)
    torch.testing.assert_close(told, 0.5 * interface.synthesizer(last, None)[0].detach())
    leaf = first.clone().requires_grad_()
    error = (interface.auxiliary.layers(leaf) - told / 0.5) * counts.unsqueeze(1)
    (gradient,) = torch.autograd.grad(0.5 * error.square().sum(), leaf, retain_graph=True)
    torch.testing.assert_close(true, own + 0.3 * 0.5 * gradient)
    wanted = torch.autograd.grad(error.square().mean(), [*interface.auxiliary.parameters()])
    for parameter, grad in zip(interface.auxiliary.parameters(), wanted, strict=True):
        torch.testing.assert_close(interface.learner.optimizer.state[parameter]["sum"], grad)


def test_the_auxiliary_task_is_learned():
    torch.manual_seed(0)
    net = DNI(Sequence(nn.GRU).double(), future=Future(factor=1.0, auxiliary=0.1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    state = None
    for x, y in data(windows=40):
        out, state = net(x, state)
        optimizer.zero_grad()
        window_loss(out, y).backward()
        optimizer.step()
    auxiliary = net.interfaces["core.state"].auxiliary
    assert all(parameter.any() for parameter in auxiliary.parameters())
    kept = net.state_dict()
    assert not any("auxiliary" in key for key in net.network.state_dict())
    again = DNI(Sequence(nn.GRU).double(), future=Future(factor=1.0, auxiliary=0.1))
    again.load_state_dict(kept)
    for ours, theirs in zip(
        again.interfaces["core.state"].auxiliary.parameters(), auxiliary.parameters(), strict=True
    ):
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
