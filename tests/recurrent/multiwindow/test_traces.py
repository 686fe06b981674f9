"""Eligibility traces: lessons for the states of all windows before."""

import pytest
import torch
from torch.nn import functional as F

from tests.support.multiwindow import (
    bare_and_wrapped,
    FACTOR,
    LAMBDA,
    lambda_returns,
    run_windows,
)
from tests.support.recurrent_zoo import data, NETWORKS, side_by_side


def summed_gradients(net):
    """Return the summed gradients of the synthesizer's parameters."""
    (interface,) = net.interfaces.values()
    state = interface.learner.optimizer.state
    return [state[parameter]["sum"] for parameter in interface.synthesizer.parameters()]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num_layers", [0, 1])
@pytest.mark.parametrize("ends", [False, True])
def test_traces_add_up_to_lambda_returns(name, num_layers, ends):
    bare, net = bare_and_wrapped(name, "traces", num_layers=num_layers, lambda_=LAMBDA)
    pairs = data(windows=6)
    states, state = run_windows(net, pairs)
    for _ in range(2):  # The lessons of a window come when the next one begins.
        out, state = net(pairs[0][0], None if ends else state)
        if ends:
            out.sum().backward()
    synthesizer = net.interfaces["core.state"].synthesizer
    predict = lambda s: synthesizer(s, None)[0].detach()  # noqa: E731
    future = None
    begun = [side_by_side(one, name).detach() for one in states[1:]]
    if ends:  # The target of the last state is zero.
        future = torch.zeros_like(begun[0])
    targets = lambda_returns(bare, states[1:], pairs[1:], predict, LAMBDA, FACTOR, name, future)
    if ends:
        last = bare(pairs[-1][0], states[-1])[1]
        begun, targets = [*begun, side_by_side(last, name).detach()], [*targets, future]
    expected = [torch.zeros_like(p) for p in synthesizer.parameters()]
    for one, target in zip(begun, targets, strict=True):
        output = synthesizer(one, None)[0]
        grads = torch.autograd.grad(F.mse_loss(output, target), [*synthesizer.parameters()])
        expected = [w + g for w, g in zip(expected, grads, strict=True)]
    for ours, theirs in zip(summed_gradients(net), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_traces_restart_after_a_window_without_a_backward_pass():
    bare, net = bare_and_wrapped("gru", "traces", lambda_=LAMBDA)
    pairs = data(windows=7)
    states, state = run_windows(net, pairs[:3])
    states.append(state)
    _, state = net(pairs[3][0], state)  # Without a backward pass.
    more, state = run_windows(net, pairs[4:], state.detach())
    net(pairs[0][0], state)
    synthesizer = net.interfaces["core.state"].synthesizer
    predict = lambda s: synthesizer(s, None)[0].detach()  # noqa: E731
    expected = [torch.zeros_like(p) for p in synthesizer.parameters()]
    for begun, part in ((states[1:3], pairs[1:3]), (more, pairs[4:])):
        targets = lambda_returns(bare, begun, part, predict, LAMBDA, FACTOR, "gru", None)
        for one, target in zip(begun, targets, strict=True):
            output = synthesizer(side_by_side(one, "gru").detach(), None)[0]
            grads = torch.autograd.grad(F.mse_loss(output, target), [*synthesizer.parameters()])
            expected = [w + g for w, g in zip(expected, grads, strict=True)]
    for ours, theirs in zip(summed_gradients(net), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
