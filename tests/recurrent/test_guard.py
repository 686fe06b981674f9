"""Temporal interfaces: the guard against predictions that do harm, and the unit they are in."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    backward,
    BasicSynthesizer,
    defer_backward,
    DNI,
    Future,
    TemporalInterface,
)
from tests.support.recurrent_zoo import (
    data,
    Loop,
)


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
