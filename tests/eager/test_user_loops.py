"""Eager learning works in the user's loops."""

import pytest
import torch
from torch import nn

from tests.support.eager_nets import assert_same_training, default_and_eager
from tests.support.zoo import ZOO


def zeroed_between(net, opt, xs, loss):
    for x in xs:
        value = loss(net(x))
        opt.zero_grad()
        value.backward()
        opt.step()


def accumulated(net, opt, xs, loss):
    for i, x in enumerate(xs):
        (loss(net(x)) / 4).backward()
        if i % 4 == 3:
            opt.step()
            opt.zero_grad()


def two_at_once(net, opt, xs, loss):
    for x, y in zip(xs[::2], xs[1::2], strict=True):
        first = loss(net(x))
        second = loss(net(y))
        opt.zero_grad()
        first.backward()
        second.backward()
        opt.step()


def one_sum(net, opt, xs, loss):
    for x, y in zip(xs[::2], xs[1::2], strict=True):
        opt.zero_grad()
        (loss(net(x)) + loss(net(y))).backward()
        opt.step()


def clipped(net, opt, xs, loss):
    for x in xs:
        opt.zero_grad()
        loss(net(x)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        opt.step()


def not_backpropagated(net, opt, xs, loss):
    for i, x in enumerate(xs):
        value = loss(net(x))
        if i % 3:
            opt.zero_grad()
            value.backward()
            opt.step()


def by_grad(net, opt, xs, loss):
    for x in xs:
        grads = torch.autograd.grad(loss(net(x)), [*net.parameters()])
        for p, grad in zip(net.parameters(), grads, strict=True):
            p.grad = grad
        opt.step()


LOOPS = {
    loop.__name__: loop
    for loop in (
        zeroed_between,
        accumulated,
        two_at_once,
        one_sum,
        clipped,
        not_backpropagated,
        by_grad,
    )
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_users_loop_equals_the_default_way(name):
    torch.manual_seed(5)
    inputs = [ZOO["batchnorm_inplace"].input() for _ in range(24)]
    nets = default_and_eager("batchnorm_inplace", example_input=inputs[0])
    for net in nets:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        LOOPS[name](net, optimizer, inputs, ZOO["batchnorm_inplace"].loss)
    if name not in ("two_at_once", "one_sum"):
        assert_same_training(*nets)
        return
    # A part predicts when it runs and not in the backward pass. With two forward passes before a
    # backward pass, predictions differ from the default way.
    assert all(stats.updates >= 12 for stats in nets[1].stats().values())
    torch.manual_seed(0)
    start = ZOO["batchnorm_inplace"].build()
    for ours, was in zip(nets[1].parameters(), start.parameters(), strict=True):
        assert ours.isfinite().all()
        assert not torch.equal(ours, was)
