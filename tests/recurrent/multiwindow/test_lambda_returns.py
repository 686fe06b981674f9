"""Lambda-returns: the targets of blocks of windows."""

import pytest
import torch

from pytorch_dni import TemporalInterface
from tests.support.multiwindow import (
    bare_and_wrapped,
    FACTOR,
    LAMBDA,
    lambda_returns,
    run_windows,
    unjoined,
    window_loss,
)
from tests.support.recurrent_zoo import data, NETWORKS, side_by_side


@pytest.fixture
def lessons(monkeypatch):
    """Return a list that receives the state, the target and the mask of each lesson."""
    taught, teach = [], TemporalInterface.update_towards

    def recorded(self, state, context, true, valid_mask):
        taught.append((state, true, valid_mask))
        return teach(self, state, context, true, valid_mask)

    def recorded_end(self, state, context, valid_mask):
        taught.append((state, torch.zeros_like(state), valid_mask))
        return end(self, state, context, valid_mask)

    end = TemporalInterface.end_update
    monkeypatch.setattr(TemporalInterface, "update_towards", recorded)
    monkeypatch.setattr(TemporalInterface, "end_update", recorded_end)
    return taught


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("lambda_", [0.0, LAMBDA, 1.0])
def test_lambda_returns_follow_the_equation(name, lambda_, lessons):
    bare, net = bare_and_wrapped(name, "returns", windows=3, lambda_=lambda_)
    pairs = data(windows=7)
    states, state = run_windows(net, pairs)
    assert len(lessons) == 3  # Lessons of windows 4 to 6 come when the next window begins.
    net(pairs[0][0], state)
    synthesizer = net.interfaces["core.state"].synthesizer
    predict = lambda s: synthesizer(s, None)[0].detach()  # noqa: E731
    for block in (slice(1, 4), slice(4, 7)):
        targets = lambda_returns(
            bare, states[block], pairs[block], predict, lambda_, FACTOR, name, None
        )
        for begun, target in zip(states[block], targets, strict=True):
            taught, true, valid_mask = lessons.pop(0)
            torch.testing.assert_close(taught, side_by_side(begun, name), rtol=0, atol=0)
            torch.testing.assert_close(true, target, rtol=1e-9, atol=1e-13)
            assert valid_mask.all()
    assert not lessons


@pytest.mark.parametrize("name", NETWORKS)
def test_returns_over_a_whole_sequence_are_full_backpropagation(name, lessons):
    bare, net = bare_and_wrapped(name, "returns", factor=1.0, windows=9, lambda_=1.0)
    pairs = data(windows=4)
    states, _ = run_windows(net, pairs)
    net(pairs[0][0])[0].sum().backward()  # Without a state: the sequence has ended.
    net(pairs[0][0])
    begun = side_by_side(states[1], name)
    total, state = 0.0, unjoined(begun.requires_grad_(), states[1], name)
    expected = [begun]
    for x, y in pairs[1:]:
        out, state = bare(x, state)
        total = total + window_loss(out, y)
        joined = side_by_side(state, name)
        expected.append(joined)
        state = unjoined(joined, state, name)
    targets = torch.autograd.grad(total, expected[:-1])
    for target, (_, true, _) in zip(targets, lessons, strict=False):
        torch.testing.assert_close(true, target, rtol=1e-9, atol=1e-13)
    assert len(lessons) == 4
    assert not lessons[-1][1].any()  # No window received the last state.


def test_samples_that_end_within_a_block_have_the_target_zero(lessons):
    over = torch.tensor([False, True, False, False, True])
    bare, net = bare_and_wrapped("lstm", "returns", factor=1.0, windows=9, lambda_=1.0)
    pairs = data(windows=3)
    state, states = None, []
    for i, (x, y) in enumerate(pairs):
        states.append(state)
        out, state = net(x, state)
        if i == 1:
            net.end_of_sequence(over)
        window_loss(out, y).backward()
        state = tuple(s.detach() * (1 if i != 1 else ~over.view(1, -1, 1)) for s in state)
    net(pairs[0][0])[0].sum().backward()
    net(pairs[0][0])
    begun = [side_by_side(one, "lstm").detach().requires_grad_() for one in states[1:]]
    out, last = bare(pairs[1][0], unjoined(begun[0], states[1], "lstm"))
    continued = side_by_side(last, "lstm") * ~over.unsqueeze(1)
    more, _ = bare(pairs[2][0], unjoined(continued, states[2], "lstm"))
    total = window_loss(out, pairs[1][1]) + window_loss(more, pairs[2][1])
    (target,) = torch.autograd.grad(total, begun[0])
    torch.testing.assert_close(lessons[0][1], target, rtol=1e-9, atol=1e-13)
    assert not lessons[1][1][over].any()
    assert lessons[1][1][~over].any()


def test_inputs_may_be_changed_in_place(lessons):
    taught = []
    for reuse in (False, True):
        _, net = bare_and_wrapped("gru", "returns", windows=3, lambda_=1.0)
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
