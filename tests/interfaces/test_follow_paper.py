"""Interfaces by hand: each primitive against a reference written from the paper's equations."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    backward,
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    defer_backward,
    ForwardInterface,
    UnidirectionalInterface,
)
from tests.support.primitives import agrees, close, double, linear, LR, synthesizer
from tests.support.reference import Chain, Recurrent, Regression, Unlocked


class Trained:
    """An interface's synthesizer trained by itself, or by an optimizer of the user's."""

    def __init__(self, itself):
        self.options = {"optim": "sgd", "lr": LR} if itself else {"optim": None}
        self.itself = itself

    def step(self, module):
        if not self.itself:
            torch.optim.SGD(module.parameters(), LR).step()


@pytest.fixture(params=[True, False], ids=["itself", "users-optimizer"])
def trained(request):
    return Trained(request.param)


def frozen_step(network, interfaces, trained):
    """The references' weights stand still: only the synthesizers learn."""
    for interface in interfaces:
        trained.step(interface)
        interface.zero_grad()
    network.zero_grad()


@pytest.mark.parametrize("zero_first", [True, False])
def test_update_unlock_follows_the_paper(trained, zero_first):
    layers = [linear(4, 5), linear(5, 5), linear(5, 2)]
    reference = Chain([layer.weight.detach() for layer in layers], LR)
    cuts = [BackwardInterface(synthesizer(5, 5), **trained.options) for _ in range(2)]
    network = nn.ModuleList(layers)
    for _ in range(6):
        x = double(6, 4)
        expected = reference.gradients(x)
        if zero_first:
            network.zero_grad()
        h1 = cuts[0](torch.tanh(layers[0](x)))
        h2 = cuts[1](torch.tanh(layers[1](h1)))
        loss = layers[2](h2).square().mean()
        if not zero_first:
            network.zero_grad()
        loss.backward()
        for layer, grad in zip(layers, expected, strict=True):
            close(layer.weight.grad, grad.t())
        frozen_step(network, cuts, trained)
    for cut, regression in zip(cuts, reference.cuts, strict=True):
        agrees(cut.synthesizer, regression)
        assert cut.stats().updates == 6


def test_the_users_optimizer_finds_the_gradients_in_the_same_pass():
    """Of the mean squared error in normalised units, and added to what is there."""
    cut = BackwardInterface(synthesizer(4, 4), optim=None)
    layer = linear(3, 4)
    assert {*map(id, cut.parameters())} == {*map(id, cut.synthesizer.parameters())}
    target = double(5, 4)
    for repeat in (1, 2):
        h = torch.tanh(layer(double(5, 3)))
        (cut(h) * target).sum().backward()
        bias = cut.synthesizer.layers.last.bias
        rms = target.square().mean().sqrt()
        close(bias.grad, -2 * (target / rms).sum(0) / target.numel() * repeat)


def test_forward_interface_follows_the_paper(trained):
    front, behind = linear(4, 5), linear(5, 2)
    reference = Regression(4, 5, LR)
    cut = ForwardInterface(synthesizer(4, 5), **trained.options)
    for _ in range(6):
        x = double(6, 4)
        h = torch.tanh(front(x)).detach()
        predicted = reference.predict(x)
        crossed = cut(h, x)
        close(crossed.detach(), predicted)
        reference.learn(x, h)
        behind(crossed).square().mean().backward()
        trained.step(cut)
        cut.zero_grad()
    agrees(cut.synthesizer, reference)


def test_forward_interface_alone_warns_once_that_it_breaks_backpropagation():
    front, cut = nn.Linear(4, 5), ForwardInterface(BasicSynthesizer(5, trigger_dim=4))
    x = torch.randn(6, 4)
    with pytest.warns(UserWarning, match="BidirectionalInterface"):
        cut(front(x), x).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut(front(x), x).sum().backward()
    assert front.weight.grad is None


def test_full_unlock_follows_the_paper(trained):
    front, behind = linear(4, 5), linear(5, 2)
    reference = Unlocked([front.weight.detach(), behind.weight.detach()], LR)
    cut = BidirectionalInterface(synthesizer(4, 5), synthesizer(5, 5), **trained.options)
    for _ in range(6):
        x = double(6, 4)
        expected = reference.gradients(x)
        behind(cut(torch.tanh(front(x)), x)).square().mean().backward()
        close(front.weight.grad, expected[0].t())
        close(behind.weight.grad, expected[1].t())
        frozen_step(nn.ModuleList([front, behind]), [cut], trained)
    agrees(cut.forward_interface.synthesizer, reference.ahead)
    agrees(cut.backward_interface.synthesizer, reference.back)


def test_halves_that_only_send_and_receive_follow_the_paper(trained):
    front, behind = linear(4, 5), linear(5, 2)
    reference = Unlocked([front.weight.detach(), behind.weight.detach()], LR)
    ours = BidirectionalInterface(synthesizer(4, 5), synthesizer(5, 5), **trained.options)
    theirs = copy.deepcopy(ours)
    for _ in range(6):
        x = double(6, 4)
        expected = reference.gradients(x, together=False)
        ours.send(torch.tanh(front(x)), x)  # its parameters have their gradients now
        close(front.weight.grad, expected[0].t())
        behind(theirs.receive(x)).square().mean().backward()
        close(behind.weight.grad, expected[1].t())
        frozen_step(nn.ModuleList([front, behind]), [ours, theirs], trained)
        theirs.forward_interface.load_state_dict(ours.forward_interface.state_dict())
        ours.backward_interface.load_state_dict(theirs.backward_interface.state_dict())
    agrees(theirs.forward_interface.synthesizer, reference.ahead)
    agrees(ours.backward_interface.synthesizer, reference.back)


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_truncated_recurrence_follows_the_paper(trained, factor):
    u, w, v = linear(4, 4), linear(3, 4), linear(4, 2)
    weights = nn.ModuleList([u, w, v])
    reference = Recurrent([layer.weight.detach() for layer in weights], LR, factor)
    future = BackwardInterface(synthesizer(4, 4), **trained.options)
    state = expected_state = double(5, 4)
    for _ in range(6):
        xs, ys = double(3, 5, 3), double(3, 5, 2)
        expected_state, expected = reference.gradients(expected_state, xs, ys)
        with defer_backward():
            state, loss = future.make_trigger(state), 0
            for x, y in zip(xs, ys, strict=True):
                state = torch.tanh(u(state) + w(x))
                loss = loss + F.mse_loss(v(state), y)
            backward(loss)
            future.backward(state, factor)
            assert u.weight.grad is None
        for layer, grad in zip(weights, expected, strict=True):
            close(layer.weight.grad, grad.t())
        frozen_step(weights, [future], trained)
        close(state.detach(), expected_state)
    agrees(future.synthesizer, reference.future)


def test_send_and_receive_of_each_direction(trained):
    """``send`` teaches any message by any trigger, ``receive`` predicts it."""
    for kind in (UnidirectionalInterface, ForwardInterface):
        interface = kind(synthesizer(4, 5), **trained.options)
        reference = Regression(4, 5, LR)
        for _ in range(5):
            trigger, message = double(6, 4), double(6, 5)
            close(interface.receive(trigger), reference.predict(trigger))
            interface.send(message, trigger)
            reference.learn(trigger, message)
            trained.step(interface)
            interface.zero_grad()
        agrees(interface.synthesizer, reference)
    assert not interface.receive(trigger.requires_grad_()).requires_grad
