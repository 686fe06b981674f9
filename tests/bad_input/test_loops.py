"""Unusual loops: several optimizers, closures, two passes for a step, scaled losses, autocast."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.support.ways import assert_same, data, loss_of, run_of, WAYS


@pytest.mark.parametrize("way", WAYS)
def test_two_optimizers_equal_one(way):
    one, two = run_of(way), run_of(way)
    parameters = [*two.network.parameters()]
    optimizers = [torch.optim.Adam(part, lr=0.01) for part in (parameters[:3], parameters[3:])]
    one.train(0, 4)
    for step in range(4):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(two, *data(step)).backward()
        for optimizer in optimizers:
            optimizer.step()
    assert_same(one, two)


@pytest.mark.parametrize("way", WAYS)
def test_closures_that_are_called_several_times(way):
    run = run_of(way)
    optimizer = torch.optim.LBFGS(run.network.parameters(), lr=0.05, max_iter=4, tolerance_grad=0)
    calls = []
    for step in range(3):

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(run, *data(step))
            loss.backward()
            calls.append(loss.item())
            for parameter in run.network.parameters():  # sparse updates leave some without
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            return loss

        optimizer.step(closure)
    assert len(calls) > 3
    assert all(map(math.isfinite, calls))
    assert run.net._rooms.learner.steps == len(calls)
    assert all(p.isfinite().all() for p in run.tensors())


@pytest.mark.parametrize("way", WAYS)
def test_two_passes_for_each_step(way):
    """As sharpness-aware minimisation does: the second pass at weights that were moved."""
    run = run_of(way)
    for step in range(3):
        x, y = data(step)
        run.opt.zero_grad()
        loss_of(run, x, y).backward()
        grads = {p: p.grad.clone() for p in run.network.parameters() if p.grad is not None}
        size = sum(grad.square().sum() for grad in grads.values()).sqrt() + 1e-12
        with torch.no_grad():
            for parameter, grad in grads.items():
                parameter.add_(grad * (0.05 / size))
        run.opt.zero_grad()
        loss_of(run, x, y).backward()
        with torch.no_grad():
            for parameter, grad in grads.items():
                parameter.sub_(grad * (0.05 / size))
        run.opt.step()
    assert run.net._rooms.learner.steps == 6
    assert all(p.isfinite().all() for p in run.tensors())


# With sparse updates a step may have no gradient at all, which the scaler does not take.
@pytest.mark.parametrize("way", [way for way in WAYS if way != "sparse"])
def test_scaled_losses_with_an_overflow(way):
    """The overflow leaves out the step of the network and of the synthesizers that regress."""
    run = run_of(way)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for step in range(5):
        run.opt.zero_grad()
        loss = loss_of(run, *data(step))
        if step == 1:
            loss = loss * math.inf
        before = [p.clone() for p in run.network.parameters()]
        scaler.scale(loss).backward()
        scaler.step(run.opt)
        scaler.update()
        found = [p.grad for p in run.network.parameters() if p.grad is not None]
        if not all(grad.isfinite().all() for grad in found):
            after = run.network.parameters()
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(p.isfinite().all() for p in run.tensors())


@pytest.mark.parametrize("way", WAYS)
def test_autocast_on_the_cpu(way):
    run = run_of(way)
    for step in range(3):
        run.opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(run, *data(step), lambda out, y: F.cross_entropy(out.float(), y))
        loss.backward()
        run.opt.step()
    assert {p.dtype for p in run.tensors()} == {torch.float32}
    assert all(p.isfinite().all() for p in run.tensors())
    assert all(interface.dtype == torch.float32 for interface in _one_way(run.net))


def _one_way(net):
    for interface in net.interfaces.values():
        yield getattr(interface, "backward_interface", interface)
