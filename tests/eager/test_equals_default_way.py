"""Eager learning: the default way's gradients, whatever the loop."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, LocalLoss_DNI
from tests.support.eager_nets import agree, nets, train
from tests.support.zoo import ZOO


@pytest.mark.parametrize("example", [False, True])
@pytest.mark.parametrize("name", ZOO)
def test_equal_to_the_default_way(name, example):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    # The first input places the cuts: the default way does that in its first step.
    default, eager = nets(name, example_input=inputs[0])
    if not example:
        eager = nets(name)[1]
    for net in (default, eager):
        train(net, inputs, ZOO[name].loss)
    agree(eager, default)
    assert any(stats.updates == 20 for stats in eager.stats().values())


@pytest.mark.parametrize("name", ["mlp", "cnn", "batchnorm_inplace", "transformer"])
def test_equal_with_local_losses(name):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    labels = torch.randint(3, (len(inputs[0]),))
    made = nets(name, dni_network=LocalLoss_DNI, context_size=3, example_input=inputs[0])
    for net in made:
        train(net, inputs, ZOO[name].loss, labels)
    agree(*made)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_equal_with_contexts_other_optimizers_and_several_steps(name):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    labels = torch.randint(3, (len(inputs[0]),))
    made = nets(name, context_size=3, grad_optim="sgd", grad_lr=0.1, grad_steps=3,
                example_input=inputs[0])  # fmt: skip
    for net in made:
        train(net, inputs, ZOO[name].loss, labels)
    agree(*made)


@pytest.mark.parametrize("local", [False, True])
def test_equal_with_sparse_updates(local):
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(40)]
    options = {"dni_network": LocalLoss_DNI, "context_size": 3} if local else {}
    made = nets("mlp", update_probability=0.5, example_input=inputs[0], **options)
    labels = torch.randint(3, (len(inputs[0]),)) if local else None
    for net in made:
        train(net, inputs, ZOO["mlp"].loss, labels)
    agree(*made)


def test_equal_where_a_part_has_no_parameters():
    torch.manual_seed(5)
    inputs, labels = [torch.randn(8, 4) for _ in range(12)], torch.randint(3, (8,))
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Tanh(), nn.Linear(6, 3))
    made = []
    for eager in (False, True):
        made.append(DNI(copy.deepcopy(network), layers=["1", "2"], eager=eager,
                        dni_network=LocalLoss_DNI, context_size=3))  # fmt: skip
        train(made[-1], inputs, lambda out: F.cross_entropy(out, labels), labels)
    agree(*made)


def test_a_share_of_the_true_gradient_goes_the_default_way():
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(20)]
    made = nets("mlp", bp_lambda=lambda step: 1.0 if step < 7 else 0.5 * (step < 12),
                example_input=inputs[0])  # fmt: skip
    for net in made:
        train(net, inputs, ZOO["mlp"].loss)
    agree(*made)


def loops():
    """Loops that people write; each is given a network, an optimizer, inputs and a loss."""

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

    own = locals()
    return {name: own[name] for name in own}


@pytest.mark.parametrize("name", loops())
def test_the_users_loop(name):
    torch.manual_seed(5)
    inputs = [ZOO["batchnorm_inplace"].input() for _ in range(24)]
    made = nets("batchnorm_inplace", example_input=inputs[0])
    for net in made:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        loops()[name](net, optimizer, inputs, ZOO["batchnorm_inplace"].loss)
    if name not in ("two_at_once", "one_sum"):
        agree(*made)
        return
    # Parts predict as they run, not when the backward pass comes: near, not equal.
    assert all(stats.updates >= 12 for stats in made[1].stats().values())
    torch.manual_seed(0)
    start = ZOO["batchnorm_inplace"].build()
    for ours, was in zip(made[1].parameters(), start.parameters(), strict=True):
        assert ours.isfinite().all()
        assert not torch.equal(ours, was)


class Marked(torch.autograd.Function):
    """Hands on what comes, and counts how often a gradient comes back."""

    passed = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        Marked.passed += 1
        return grad


class Entrance(nn.Module):
    def forward(self, x):
        return Marked.apply(x)


@pytest.mark.parametrize(("local", "wanted"), [(False, 20), (True, 9)])
def test_local_losses_have_the_true_gradient_computed_where_it_is_measured(local, wanted):
    # Measured are the first eight of their updates, and then one of eight.
    options = {"dni_network": LocalLoss_DNI, "context_size": 3} if local else {}
    network = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), Entrance(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    inputs = [torch.randn(5, 4) for _ in range(20)]
    net = DNI(network, layers=["1", "4"], eager=True, example_input=inputs[0], **options)
    Marked.passed = 0
    train(net, inputs, lambda out: out.square().mean(), torch.randint(3, (5,)) if local else None)
    assert Marked.passed == wanted
    assert {stats.updates for stats in net.stats().values()} == {20}
