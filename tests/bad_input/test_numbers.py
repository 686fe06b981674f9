"""Numbers that are not finite: such a step teaches nothing, and training goes on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pytorch_dni import BackwardInterface, ContextError, DNI, Linear_DNI, synthesizer_context
from tests.support.ways import data, loss_of, run_of, WAYS
from tests.support.wrapped import synthesizer_parameters

BAD = [math.nan, math.inf, -math.inf]


def assert_finite(net):
    for interface in net.interfaces.values():
        for value in (*interface.parameters(), *interface.buffers()):
            assert value.isfinite().all()
    for name, value in net.state_dict().items():
        if name.startswith("_dni.") and name != "_dni.bp_lambda":  # NaN stands for a function
            assert value.isfinite().all(), name


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(
    bad=st.sampled_from(BAD),
    place=st.sampled_from(["input", "one input", "loss", "gradient"]),
    first=st.booleans(),
)
def test_a_step_that_is_not_finite_teaches_nothing_and_training_goes_on(way, bad, place, first):
    run = run_of(way)
    run.train(0, 0 if first else 2)
    known = [p.clone() for p in synthesizer_parameters(run.net)]
    x, y = data(9)
    if place == "input":
        x = torch.full_like(x, bad)
    elif place == "one input":
        x[0, 0] = bad
    loss = loss_of(run, x, y)
    if place == "loss":
        loss = loss * bad
    elif place == "gradient":
        loss.register_hook(lambda grad: grad * bad)
    loss.backward()  # The user looks at the loss, and leaves the step of the network out.
    if way != "local loss" or "input" in place:  # its own loss is finite, and it learns from that
        for before, after in zip(known, synthesizer_parameters(run.net), strict=False):
            assert torch.equal(before, after)
    assert_finite(run.net)
    run.opt.zero_grad()
    for _ in range(2):
        run.train(2, 5)
    assert_finite(run.net)
    assert all(p.isfinite().all() for p in run.network.parameters())


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", [None, Linear_DNI])
def test_a_context_that_is_not_finite_is_an_error(bad, kind):
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), context_size=3, dni_network=kind)
    features = torch.randn(2, 3)
    features[1, 2] = bad
    with pytest.raises(ContextError, match="not finite"), synthesizer_context(features):
        net(torch.randn(2, 4))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("norm", ["batch", "layer", None])
def test_an_activation_that_is_not_finite_spoils_no_synthesizer(bad, norm):
    """Its true gradient may be finite, where the loss leaves the sample out."""
    interface = BackwardInterface(Linear_DNI(4, 8, 4, norm=norm))
    for step in range(3):
        x = torch.randn(6, 4)
        if step == 1:
            x[0] = bad
        h = interface(x.requires_grad_() * 1)
        F.mse_loss(h[1:], torch.zeros(5, 4)).backward()
        assert all(p.isfinite().all() for p in interface.synthesizer.parameters())


def test_an_overflow_at_first_does_not_count_in_running_sizes():
    """Loss scaling begins with steps that overflow: the next ones are as if these had not been."""
    runs = [run_of("backward"), run_of("backward")]
    for step in range(3):
        (loss_of(runs[0], *data(step)) * math.inf).backward()
        runs[0].opt.zero_grad()
    for run in runs:
        loss_of(run, *data(5)).backward()
    for a, b in zip(*(run.net.interfaces.values() for run in runs), strict=True):
        assert a.scale.value == b.scale.value
        assert a.error_input.scale.value == b.error_input.scale.value
        assert torch.equal(a.moments.values, b.moments.values)
