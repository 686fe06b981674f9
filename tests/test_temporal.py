"""Temporal interfaces: the gradient of the future at the states that windows hand on."""

import copy
import gc
import io
import warnings

import pytest
import torch
from recurrent_zoo import (
    data,
    detached,
    Loop,
    NETWORKS,
    Own,
    rebuilt,
    Sequence,
    side_by_side,
    tensors,
)
from reference import Windows
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    backward,
    BasicSynthesizer,
    ContextError,
    defer_backward,
    DNI,
    DNIError,
    Future,
    LocalLoss_DNI,
    StateSpec,
    synthesizer_context,
    SynthesizerError,
    TemporalInterface,
)

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


class Plain(nn.Module):
    """h' = tanh(h U + x W), without biases."""

    def __init__(self):
        super().__init__()
        self.core = Step()
        self.v = nn.Linear(4, 2, bias=False)

    def forward(self, xs, state):
        outs = []
        for x in xs:
            state = self.core(x, state)
            outs.append(self.v(state))
        return torch.stack(outs), state


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.u, self.w = nn.Linear(4, 4, bias=False), nn.Linear(3, 4, bias=False)

    def forward(self, x, state):
        return torch.tanh(self.u(state) + self.w(x))


STEP = {"core": StateSpec(argument=1, result=None)}
LR = 0.2


def pair(bound=0.5, probe=3, factor=0.7):
    network = Plain().double()
    weights = [w.weight.detach() for w in (network.core.u, network.core.w, network.v)]
    reference = Windows(weights, LR, factor, bound, probe)
    net = DNI(
        network,
        recurrent=STEP,
        future=Future(factor, bound, probe, guard=False),
        dni_network=BasicSynthesizer,
        grad_optim="sgd",
        grad_lr=LR,
    )
    return network, net, reference


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


def test_a_sample_that_is_begun_anew_in_place_has_no_future():
    net = DNI(Loop(nn.GRUCell))
    x = torch.randn(3, 5, 3)
    _, state = net(x, None)
    for _ in range(3):
        out, state = net(x, state.detach())
        out.sum().backward()
    interface, taught = net.interfaces["core.state"], []
    lesson = interface.lesson
    interface.lesson = lambda p, m, c=None: taught.append(m) or lesson(p, m, c)
    state = state.detach()
    state[1] = 0
    net(x, state)[0].sum().backward()
    assert taught[0].any(1).tolist() == [True, False, True, True, True]


def test_states_that_are_never_handed_on_are_told_of_once():
    net, x = DNI(Sequence(nn.GRU)), torch.randn(3, 5, 3)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(60):
            net(x)[0].sum().backward()
    assert ["recurrent=False" in str(w.message) for w in warned] == [True]
    net, state = DNI(Sequence(nn.GRU)), None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(120):
            out, state = net(x, state if i % 2 else None)
            out.sum().backward()


def test_a_module_that_does_not_run_in_a_window():
    class Sometimes(Sequence):
        def forward(self, x, state=None, skip=False):
            if skip:
                return self.head(torch.ones(3, 5, 4)), state
            return super().forward(x, state)

    net = DNI(Sometimes(nn.GRU))
    x, state = torch.randn(3, 5, 3), None
    for skip in (False, False, True, False, True, True, False):
        out, state = net(x, state, skip)
        out.sum().backward()
        state = state.detach()
    assert net.stats()["core.state"].updates == 3


def test_a_window_without_a_loss():
    network, net, _ = pair(probe=10**9)
    state = torch.randn(5, 4, dtype=torch.float64)
    with pytest.raises(DNIError, match="backward_state"):
        net.backward_state()
    for x, y in data(4):
        out, state = net(x, state)
        F.mse_loss(out, y).backward()
    net.zero_grad()
    interface = net.interfaces["core.state"]
    interface.scale._take(1e-3)
    nn.init.normal_(interface.synthesizer.layers.last.weight)
    updates = interface.stats().updates
    x = data(1)[0][0]
    _, state = net(x, state)
    net.backward_state()
    assert network.core.u.weight.grad.any()
    assert network.v.weight.grad is None
    assert interface.stats().updates == updates + 1
    with pytest.raises(DNIError, match="backward_state"):
        net.backward_state()
    net(x, state)[0].sum().backward()
    assert interface.stats().updates == updates + 2


def noisy(lr):
    """A synthesizer that chases targets without any reason in them, too fast."""
    future = Future(factor=1.0, probe=2)
    return TemporalInterface(
        BasicSynthesizer(4, 1, 32, norm=None), optim="sgd", lr=lr, future=future
    )


def drive(interface, steps, target):
    sent = []
    for _ in range(steps):
        state = interface.make_trigger(torch.randn(6, 4))
        with defer_backward():
            last = state * 1
            interface.backward(last.detach().requires_grad_() * 1)
            backward((last * target(state.detach())).sum())
        sent.append(interface.guard.injects)
    return sent


def test_the_guard_switches_off_warns_once_and_comes_back():
    torch.manual_seed(0)
    interface = noisy(1.0)
    with pytest.warns(UserWarning, match="times that of predicting zero") as warned:
        sent = drive(interface, 400, lambda s: torch.randn_like(s))
    assert len([w for w in warned if "predicting zero" in str(w.message)]) == 1
    assert sent[0]
    assert not sent[-1]
    assert not interface.send_back(torch.randn(6, 4), None).any()
    for group in interface.learner.optimizer.param_groups:
        group["lr"] = 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sent = drive(interface, 3000, lambda s: s)
    assert sent[-1]
    assert interface.stats().loss < 1
    interface.windows = 0
    assert interface.send_back(torch.randn(6, 4), None).any()


def test_the_unit_is_not_fed_by_what_is_sent_in():
    """A synthesizer that always says too much, and nothing true behind it."""

    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.zeros(1))

        def forward(self, trigger, context):
            return trigger.sign() * 3 + self.p * 0

    future = Future(factor=1.0, bound=None, guard=False, probe=4)
    net = DNI(Loop(nn.GRUCell), recurrent=True, future=future, dni_network=lambda *_: Loud())
    state = None
    for x, y in data(200):
        out, state = net(x.float(), state)
        F.mse_loss(out, y.float()).backward()
    unit = net.interfaces["core.state"].scale.value
    assert 0 < unit < 1
    bounded = TemporalInterface(Loud(), future=Future(factor=1.0, bound=0.5))
    bounded.scale._take(4.0)
    sent = bounded.send_back(torch.randn(6, 4), None)
    torch.testing.assert_close(sent.norm(dim=1), torch.full((6,), 0.5 * 2 * 2.0))


def live():
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


@pytest.mark.parametrize("name", NETWORKS)
def test_memory_is_flat(name):
    build, recurrent = NETWORKS[name]
    net = DNI(build(), recurrent=recurrent)
    optimizer = torch.optim.Adam(net.parameters())
    x, y = (t.float() for t in data(1)[0])
    counts, state = [], None
    for i in range(60):
        out, state = net(x, state)
        loss = F.mse_loss(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i in (20, 40, 59):
            counts.append(live())
    assert counts[0] >= counts[1] >= counts[2]


def test_evaluation_and_no_grad_leave_all_alone():
    network = Sequence(nn.LSTM)
    bare = copy.deepcopy(network)
    net = DNI(network)
    x = torch.randn(3, 5, 3)
    with torch.no_grad():
        _, state = net(x, None)
        net(x, state)
    assert not net.interfaces
    net(x, net(x, None)[1])[0].sum().backward()
    assert net.interfaces
    net.eval()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    expected, state = bare(*[x, bare(x)[1]])
    assert torch.equal(net(x, net(x)[1])[0], expected)
    # In evaluation gradients pass from window to window, as they would without the wrapper.
    begin = torch.zeros(2, 5, 4, requires_grad=True)
    _, (h, c) = net(x, (begin, begin))
    net(x, (h, c))[0].sum().backward()
    assert begin.grad.any()
    net.train()
    assert net.unwrap() is network
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("name", ["lstm", "gru cell", "own"])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy"])
@pytest.mark.parametrize("context", [None, 3])
def test_resuming_is_as_if_never_stopped(name, how, context):
    build, recurrent = NETWORKS[name]
    network = build()
    options = {"recurrent": recurrent, "context_size": context, "future": Future(probe=3)}
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
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        other = DNI(copy.deepcopy(network), **options)
        other.load_state_dict(torch.load(file, weights_only=True))
    ends = [train(one, pairs[9:], state) for one in (net, other)]
    for ours, theirs in zip(*(tensors(end) for end in ends), strict=True):
        assert torch.equal(ours, theirs)
    assert net.stats() == other.stats()


def test_resuming_with_cuts_in_space_that_are_met_late():
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

    options = {"layers": ["head", "extra"], "recurrent": True}
    network = Late()
    net = DNI(copy.deepcopy(network), **options)
    train(net, 9)
    assert net._cuts.learner.state_dict()["order"] == ["head", "core.state", "extra"]
    other = DNI(copy.deepcopy(network), **options)
    other.load_state_dict(net.state_dict())
    for one in (net, other):
        train(one, 7)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_context_belongs_to_the_state_that_the_window_leaves():
    class Spy(nn.Module):
        context_dim = 3

        def forward(self, trigger, context):
            seen.append((trigger.clone(), context.argmax(1)))
            return torch.zeros_like(trigger)

    seen = []
    net = DNI(Sequence(nn.GRU), dni_network=lambda *_: Spy(), future=Future(factor=1, probe=99))
    state = None
    for i, (x, _) in enumerate(data(3)):
        with synthesizer_context(torch.full((5,), i)):
            out, state = net(x.float(), state)
        out.sum().backward()
    labels = [context[0].item() for _, context in seen]
    # Window 1 teaches at what 0 left; into 2 is sent at what it leaves, and it teaches what 1 left.
    assert labels == [0, 2, 1]
    with pytest.raises(ContextError, match=r"core\.state"):
        net(data(1)[0][0].float(), state)


def test_a_forward_pass_that_broke_off_has_changed_nothing():
    x, labels = torch.randn(3, 5, 3), torch.zeros(5, dtype=torch.int64)
    counts = []
    for breaks in (False, True):
        net, state = DNI(Sequence(nn.GRU), context_size=3), None
        for _ in range(5):
            if breaks and state is not None:
                with pytest.raises(ContextError, match="needs a context"):
                    net(x, state)
                with pytest.raises(RuntimeError), synthesizer_context(labels):
                    net(x[..., :2], state)
            with synthesizer_context(labels):
                out, state = net(x, state)
            out.sum().backward()
        counts.append(net.stats()["core.state"].updates)
    assert counts == [4, 4]


def test_a_context_that_nobody_asked_for():
    net = DNI(Sequence(nn.GRU))
    with synthesizer_context(torch.zeros(5)), pytest.raises(ContextError, match="takes none"):
        net(torch.randn(3, 5, 3))


def test_cuts_in_space_and_time_can_be_had_together():
    x = torch.randn(3, 5, 3)

    def keys(**options):
        net = DNI(Sequence(nn.LSTM), **options)
        state = None
        for _ in range(2):
            out, state = net(x, state)
            out.square().sum().backward()
            state = detached(state)  # where time is not cut
        assert all(s.updates for s in net.stats().values())
        return [*net.interfaces]

    assert keys() == ["core.state"]
    assert keys(layers="core") == ["core"]
    assert keys(layers="core", recurrent=True) == ["core", "core.state"]
    net = DNI(nn.LSTM(3, 4))
    net(x, net(x)[1])[0].sum().backward()
    assert [*net.interfaces] == ["state"]


def test_outputs_may_be_changed_in_place_and_several_windows_be_backpropagated_at_once():
    torch.manual_seed(1)
    network = Sequence(nn.GRU)
    grads = []
    for inplace in (False, True):
        net = DNI(copy.deepcopy(network), future=Future(factor=1.0))
        for x, _ in data(5):
            out, state = net(x.float(), None)
            second, _ = net(x.float(), state)
            loss = F.relu(out, inplace).sum() + F.relu(second, inplace).sum()
            net.zero_grad()
            loss.backward()
        grads.append([p.grad for p in net.parameters()])
        assert net.stats()["core.state"].updates == 9  # all but the last one's end
    for ours, theirs in zip(*grads, strict=True):
        assert torch.equal(ours, theirs)


def test_misuse_is_one_clear_error():
    for wrong in ({"factor": -1}, {"bound": 0}, {"probe": 1}):
        with pytest.raises(DNIError, match=next(iter(wrong))):
            Future(**wrong)
    with pytest.raises(DNIError, match="no module 'nine'"):
        DNI(Own(), recurrent={"nine": StateSpec()})
    with pytest.raises(DNIError, match=r"'core' \(Memory\) needs a StateSpec"):
        DNI(Own(), recurrent={"core": None})
    with pytest.raises(DNIError, match="recurrent=True finds no"):
        DNI(Own(), recurrent=True)
    with pytest.raises(DNIError, match="must be True, False or a mapping"):
        DNI(Own(), recurrent="core")
    x = torch.randn(3, 5, 3)
    with pytest.raises(DNIError, match="correct result="):
        DNI(Own(), recurrent={"core": StateSpec(keyword="memory", result="mem")})(x)
    with pytest.raises(DNIError, match="batch_dim"):
        net = DNI(
            Own(), recurrent={"core": StateSpec(keyword="memory", result="memory", batch_dim=1)}
        )
        net(x)
    with pytest.raises(SynthesizerError, match="gradient of the future"):
        DNI(Sequence(nn.GRU), dni_network=LocalLoss_DNI, context_size=2)(x)
    net = DNI(Sequence(nn.GRU))
    with pytest.raises(DNIError, match="end_of_sequence"):
        net.end_of_sequence()
    net(x)
    with pytest.raises(DNIError, match=r"\(5,\).*\(4,\)"):
        net.end_of_sequence(torch.ones(4))
    future = TemporalInterface(BasicSynthesizer(4))
    with pytest.raises(DNIError, match="needs no gradient"):
        future.backward(torch.zeros(5, 4))
