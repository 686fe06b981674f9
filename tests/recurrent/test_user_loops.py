"""Temporal interfaces in the loops that people have: ends, gaps, contexts, misuse."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BasicSynthesizer,
    ContextError,
    DNI,
    DNIError,
    Future,
    LocalLoss_DNI,
    StateSpec,
    synthesizer_context,
    SynthesizerError,
    TemporalInterface,
)
from tests.support.recurrent_zoo import (
    data,
    detached,
    Loop,
    Own,
    Sequence,
)
from tests.support.temporal_windows import pair


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
