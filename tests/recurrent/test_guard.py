"""The guard: predictions that are worse than zero are not sent."""

import warnings

import pytest
import torch

from pytorch_dni import (
    backward,
    BasicSynthesizer,
    defer_backward,
    FutureGradient,
    TemporalInterface,
)


def fast_learner(lr):
    """Return an interface that follows random targets when its learning rate is high."""
    future = FutureGradient(factor=1.0, probe=2)
    return TemporalInterface(
        BasicSynthesizer(4, 1, 32, norm=None), optim="sgd", lr=lr, future=future
    )


def run_windows(interface, steps, target):
    sent = []
    for _ in range(steps):
        state = interface.make_trigger(torch.randn(6, 4))
        with defer_backward():
            last = state * 1
            interface.backward(last.detach().requires_grad_() * 1)
            backward((last * target(state.detach())).sum())
        sent.append(interface.guard.injects)
    return sent


def test_the_guard_stops_predictions_warns_once_and_resumes():
    torch.manual_seed(0)
    interface = fast_learner(1.0)
    with pytest.warns(UserWarning, match="times that of predicting zero") as warned:
        sent = run_windows(interface, 400, lambda s: torch.randn_like(s))
    assert len([w for w in warned if "predicting zero" in str(w.message)]) == 1
    assert sent[0]
    assert not sent[-1]
    assert not interface.inject(torch.randn(6, 4), None).any()
    for group in interface.learner.optimizer.param_groups:
        group["lr"] = 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sent = run_windows(interface, 3000, lambda s: s)
    assert sent[-1]
    assert interface.stats().loss < 1
    interface.windows = 0
    assert interface.inject(torch.randn(6, 4), None).any()
