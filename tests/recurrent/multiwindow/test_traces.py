"""Eligibility traces: lessons from all windows before."""

import pytest
import torch
from torch.nn import functional as F

from tests.support.horizon_windows import FACTOR, LAMBDA, returns, run, wrapped
from tests.support.recurrent_zoo import data, NETWORKS, side_by_side


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
