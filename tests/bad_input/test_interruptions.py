"""Exceptions in the middle of a step: training goes on as if the step had not begun."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ways import assert_same, data, loss_of, run_of, WAYS


class StopError(Exception):
    pass


def raise_stop(*call):
    raise StopError


def raise_in_backward(module, args, output):
    output.register_hook(raise_stop)


def interrupt(run, step, layer, backward):
    """Run a step that raises at a layer, in one of its two passes."""
    x, y = data(step)
    hook = raise_in_backward if backward else raise_stop
    handle = run.network[layer].register_forward_hook(hook)
    run.opt.zero_grad()
    try:
        with pytest.raises(StopError):
            loss_of(run, x, y).backward()
    finally:
        handle.remove()
    run.opt.zero_grad()


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    layer=st.sampled_from([0, 3, 5]),
    backward=st.booleans(),
    before=st.integers(1, 3),
    times=st.integers(1, 2),
)
def test_training_on_equals_a_run_without_the_broken_step(way, layer, backward, before, times):
    broken, whole = run_of(way), run_of(way)
    for run in (broken, whole):
        run.train(0, before)
    for _ in range(times):
        interrupt(broken, 9, layer, backward)
    for run in (broken, whole):
        run.train(before, before + 3)
    assert_same(broken, whole)


@pytest.mark.parametrize("way", [way for way in WAYS if "eager" not in way])
@pytest.mark.parametrize("layer", [0, 3, 5])
@pytest.mark.parametrize("backward", [False, True])
def test_a_first_step_may_break_off(way, layer, backward):
    broken = run_of(way)
    interrupt(broken, 9, layer, backward)
    broken.train(0, 3)
    assert all(p.isfinite().all() for p in broken.tensors())
    if not backward:
        whole = run_of(way)
        whole.train(0, 3)
        assert_same(broken, whole)


@pytest.mark.parametrize("way", ["backward", "update", "labels", "lambda"])
def test_a_backward_pass_may_be_tried_again(way):
    """Through the same graph: what the broken one measured is not taken back later."""
    run = run_of(way)
    run.train(0, 2)
    x, y = data(9)
    fails = [True]

    def fail_once(grad):
        if fails.pop() if fails else False:
            raise StopError

    handle = run.network[0].register_forward_hook(
        lambda *call: call[-1].register_hook(fail_once) and None
    )
    loss = loss_of(run, x, y)
    handle.remove()
    with pytest.raises(StopError):
        loss.backward(retain_graph=True)
    run.opt.zero_grad()
    updates = {name: stats.updates for name, stats in run.net.stats().items()}
    loss.backward()
    again = {name: stats.updates for name, stats in run.net.stats().items()}
    run.train(2, 4)
    after = {name: stats.updates for name, stats in run.net.stats().items()}
    assert all(again[name] > updates[name] - 1 for name in again)
    assert all(after[name] == again[name] + 2 for name in after)
