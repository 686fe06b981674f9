"""Targets over several windows in the user's loops: overflow, skipped windows, other batches."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, FutureGradient, Linear_DNI
from tests.support.horizon_windows import bare_and_wrapped, window_loss
from tests.support.recurrent_zoo import data, detached, Sequence


@pytest.mark.parametrize("target", ["bootstrap", "returns", "traces"])
def test_a_window_that_overflows_leaves_the_synthesizer_finite(target):
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
    synthesizer = net.interfaces["core.state"].synthesizer
    assert all(parameter.isfinite().all() for parameter in synthesizer.parameters())
    assert synthesizer.layers.last.weight.any()


@pytest.mark.parametrize("target", ["returns", "traces"])
def test_windows_may_be_skipped_and_batches_may_change(target):
    _, net = bare_and_wrapped("lstm cell", target, windows=3)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    state = None
    for i, (x, y) in enumerate(data(windows=12)):
        if i == 7:
            x, y, state = x[:, :3], y[:, :3], tuple(s[:3] for s in state)
        if i > 7:
            x, y = x[:, :3], y[:, :3]
        out, state = net(x, state)
        if i % 5 == 3:
            continue  # Without a backward pass.
        optimizer.zero_grad()
        window_loss(out, y).backward()
        optimizer.step()
        assert all(p.isfinite().all() for p in net.parameters())
    assert net.stats()["core.state"].updates > 4
