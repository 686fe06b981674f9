"""Probe windows learn with the prediction that was not sent into them."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, FutureGradient, Linear_DNI, TemporalInterface
from pytorch_dni.recurrent.multiwindow._traces import Traces
from tests.support.multiwindow import FACTOR, run_windows, unjoined, window_loss
from tests.support.recurrent_zoo import data, Sequence, side_by_side


@pytest.mark.parametrize("target", ["returns", "traces"])
def test_a_probe_window_learns_with_the_prediction_that_was_not_sent(target, monkeypatch):
    taught = []
    teach, trace = TemporalInterface.update_towards, Traces._teach

    def recorded_teach(self, state, context, true, counts):
        taught.append(true)
        return teach(self, state, context, true, counts)

    def recorded_trace(self, kept, targets):
        taught.extend(targets.values())
        trace(self, kept, targets)

    monkeypatch.setattr(TemporalInterface, "update_towards", recorded_teach)
    monkeypatch.setattr(Traces, "_teach", recorded_trace)
    torch.manual_seed(1)
    bare = Sequence(nn.GRU).double()
    future = FutureGradient(
        FACTOR, None, probe=3, guard=False, target=target, windows=2, lambda_=0.5
    )
    net = DNI(
        copy.deepcopy(bare),
        future=future,
        dni_network=Linear_DNI,
        dni_params={"norm": None},
        grad_optim="sgd",
        grad_lr=0.3,
    )
    pairs = data(windows=3)
    states, state = run_windows(net, pairs)
    interface = net.interfaces["core.state"]
    for parameter in interface.synthesizer.parameters():
        nn.init.normal_(parameter, std=0.5)  # Else it would predict zero.
    predicted = interface.predict_future(side_by_side(state, "gru").detach(), None)
    net(pairs[0][0], state)
    leaf = side_by_side(states[2], "gru").detach().requires_grad_()
    out, last = bare(pairs[2][0], unjoined(leaf, states[2], "gru"))
    total = window_loss(out, pairs[2][1]) + (FACTOR * predicted * side_by_side(last, "gru")).sum()
    (expected,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(taught[-1], expected, rtol=1e-9, atol=1e-13)
    assert predicted.any()
