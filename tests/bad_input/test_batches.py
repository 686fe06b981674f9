"""Unusual batches, types and parameters: they work, or fail as the bare network does."""

import copy

import pytest
import torch
from torch import nn

from tests.support.ways import assert_same, data, loss_of, run_of, WAYS
from tests.support.wrapped import synthesizer_parameters


def bare_error(run, x):
    """Return the error of the bare network for an input."""
    with pytest.raises(ValueError) as raised:
        copy.deepcopy(run.net).unwrap()(x)
    return str(raised.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", [True, False])
def test_the_error_of_batch_normalisation_stays_that_of_pytorch(way, first):
    run, other = run_of(way), run_of(way)
    for one in (run, other):
        one.train(0, 0 if first else 2)
    x, y = data(9)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") as raised:
        loss_of(run, x[:1], y[:1])
    assert str(raised.value) == bare_error(run, x[:1])
    for one in (run, other):
        one.train(2, 5)
    if not (first and "eager" in way):
        assert_same(run, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [0, 1])
def test_empty_batches_and_single_samples_leave_finite_numbers(way, batch):
    run = run_of(way)
    run.network[1] = nn.Identity()
    run.train(0, 2)
    known = [p.clone() for p in synthesizer_parameters(run.net)]
    x, y = data(9)
    loss = loss_of(run, x[:batch], y[:batch], lambda out, labels: out.square().sum())
    loss.backward()
    after = synthesizer_parameters(run.net)
    assert all(p.isfinite().all() for p in after)
    if batch == 0:
        moved = [(a - b).abs().max().item() for a, b in zip(known, after, strict=True)]
        assert max(moved) < 0.1  # momentum alone
    run.opt.zero_grad()
    run.train(2, 4)
    assert all(p.isfinite().all() for p in run.tensors())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(way, dtype):
    run = run_of(way)
    run.net.to(dtype)
    for step in range(3):
        x, y = data(step)
        run.opt.zero_grad()
        loss_of(run, x.to(dtype), y, lambda out, labels: out.square().mean()).backward()
    wanted = torch.promote_types(dtype, torch.float32)
    assert {p.dtype for p in run.network.parameters()} == {dtype}
    assert {p.dtype for p in synthesizer_parameters(run.net)} == {wanted}
    assert all(p.isfinite().all() for p in run.tensors())
    if way != "sparse":
        assert all(p.grad is not None for p in run.network.parameters())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("frozen", [[0], [3], [0, 1], [0, 1, 3], [5], [0, 1, 3, 5]])
def test_frozen_layers_stay_and_the_others_learn(way, frozen):
    run = run_of(way)
    for layer in frozen:
        run.network[layer].requires_grad_(False)
    before = copy.deepcopy(run.network)
    if len(frozen) == 4:
        x, y = data(0)
        assert not loss_of(run, x, y).requires_grad
        return
    run.train(0, 4)
    for index in (0, 1, 3, 5):
        pairs = zip(before[index].parameters(), run.network[index].parameters(), strict=True)
        same = [torch.equal(a, b) for a, b in pairs]
        assert all(same) if index in frozen else not all(same)


@pytest.mark.parametrize("way", WAYS)
def test_layers_may_be_frozen_and_thawed_while_training(way):
    run = run_of(way)
    for step, learns in enumerate([True, False, False, True, True]):
        run.network[0].requires_grad_(learns)
        run.network[1].requires_grad_(learns)
        run.train(step, step + 1)
    assert all(p.isfinite().all() for p in run.tensors())
