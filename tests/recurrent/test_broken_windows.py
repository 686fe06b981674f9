"""A window that breaks off changes nothing: training goes on as if it had never begun."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import Critic_DNI, DNI, FutureGradient, Linear_DNI
from tests.support.recurrent_zoo import data, Loop, trained_on_windows
from tests.support.wrapped import assert_equal, synthesizer_parameters

MODES = {
    "bootstrap": {"future": FutureGradient(factor=0.7, probe=3)},
    "auxiliary": {"future": FutureGradient(factor=0.7, probe=3, auxiliary=0.3)},
    "returns": {"future": FutureGradient(factor=0.7, target="returns", windows=3)},
    "traces": {
        "future": FutureGradient(factor=0.7, target="traces"),
        "dni_network": Linear_DNI,
        "dni_params": {"norm": None},
    },
    "critic": {"dni_network": Critic_DNI, "dni_params": {"horizon": 2}},
}


def trained(mode, broken, starts=()):
    """Return all parameters after 12 windows, before some of which a forward pass raises.

    The windows of ``starts`` begin without a state.
    """
    torch.manual_seed(0)
    net = DNI(Loop(nn.GRUCell).double(), **MODES[mode])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    state = None
    for i, (x, y) in enumerate(data(windows=12)):
        if broken is not None and i % 3 == 2:
            with pytest.raises(RuntimeError):
                net(x[..., :2], None if broken == "without a state" else state)
            if broken == "and then without gradients":
                with torch.no_grad():
                    net(x, state)
        out, state = net(x, None if i in starts else state)
        optimizer.zero_grad()
        if mode == "critic":
            net.observe(F.mse_loss(out, y, reduction="none").mean((0, 2)) / len(y[0]))
        F.mse_loss(out, y).backward()
        optimizer.step()
    return [*net.parameters(), *synthesizer_parameters(net)]


@pytest.mark.parametrize("starts", [(), (5, 8)])
@pytest.mark.parametrize(
    "broken", ["with a state", "without a state", "and then without gradients"]
)
@pytest.mark.parametrize("mode", MODES)
def test_training_equals_training_without_the_broken_windows(mode, broken, starts):
    assert_equal(trained(mode, broken, starts), trained(mode, None, starts))


def test_a_module_called_alone_after_a_broken_window_is_no_window():
    """Its gradient reaches the state that it was given, and its synthesizer learns nothing."""
    net = trained_on_windows(lambda: Loop(nn.GRUCell))
    (x, _), *_ = data()
    state = torch.randn(5, 4, dtype=torch.float64)
    updates = net.interfaces["core.state"].stats().updates
    with pytest.raises(RuntimeError):
        net(x[..., :2], state)
    leaf = state.detach().clone().requires_grad_()
    net.network.core(x[0], leaf).sum().backward()
    assert leaf.grad.any()
    assert net.interfaces["core.state"].stats().updates == updates
