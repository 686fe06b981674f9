"""Targets over several windows in the user's loops: overflow, skipped windows, other batches."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, FutureGradient, Linear_DNI
from tests.support.multiwindow import bare_and_wrapped, window_loss
from tests.support.recurrent_zoo import data, detached, Sequence


def synthesizer_values(net):
    """Return copies of the synthesizer's parameters, which must be finite."""
    parameters = net.interfaces["core.state"].synthesizer.parameters()
    values = [parameter.detach().clone() for parameter in parameters]
    assert all(value.isfinite().all() for value in values)
    return values


def assert_all_differ(before, after):
    """Check that each parameter has changed."""
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("target", ["bootstrap", "returns", "traces"])
def test_a_window_that_overflows_leaves_the_synthesizer_finite_and_learning(target):
    torch.manual_seed(1)
    future = FutureGradient(1.0, None, guard=False, target=target, windows=2)
    net = DNI(
        Sequence(nn.GRU).double(), future=future, dni_network=Linear_DNI, dni_params={"norm": None}
    )
    state = None
    for i, (x, y) in enumerate(data(windows=8)):
        out, state = net(x, state)
        (window_loss(out, y) * (torch.inf if i == 3 else 1)).backward()
        state = detached(state)
        values = synthesizer_values(net)
        if i == 4:
            after_overflow = values
    assert_all_differ(after_overflow, values)


@pytest.mark.parametrize("target", ["returns", "traces"])
def test_windows_may_be_skipped_and_batches_may_change(target):
    _, net = bare_and_wrapped("lstm cell", target, windows=3, grad_optim="adam")
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    state = None
    for i, (x, y) in enumerate(data(windows=12)):
        if i == 7:
            x, y, state = x[:, :3], y[:, :3], tuple(s[:3] for s in state)
        if i > 7:
            x, y = x[:, :3], y[:, :3]
        out, state = net(x, state)
        if i == 0:
            untrained = synthesizer_values(net)
        if i == 8:
            before_smaller_batches = synthesizer_values(net)
        if i % 5 == 3:
            continue  # Without a backward pass.
        optimizer.zero_grad()
        window_loss(out, y).backward()
        optimizer.step()
        assert all(p.isfinite().all() for p in net.parameters())
        values = synthesizer_values(net)
    assert_all_differ(untrained, before_smaller_batches)
    assert_all_differ(before_smaller_batches, values)
    assert net.stats()["core.state"].updates > 4
