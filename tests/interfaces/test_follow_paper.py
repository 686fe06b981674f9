"""Each kind of interface equals a reference written from the paper's equations."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    backward,
    BackwardInterface,
    BidirectionalInterface,
    defer_backward,
    ForwardInterface,
    UnidirectionalInterface,
)
from tests.support.primitives import (
    assert_close,
    assert_matches_regression,
    double,
    linear,
    LR,
    synthesizer,
)
from tests.support.reference import Chain, Recurrent, Regression, Unlocked


class Training:
    """How a synthesizer is trained: by its interface, or by an optimizer of the user."""

    def __init__(self, itself):
        self.options = {"optim": "sgd", "lr": LR} if itself else {"optim": None}
        self.itself = itself

    def step(self, module):
        if not self.itself:
            torch.optim.SGD(module.parameters(), LR).step()


@pytest.fixture(params=[True, False], ids=["itself", "users-optimizer"])
def training(request):
    return Training(request.param)


def frozen_step(network, interfaces, training):
    """Let only the synthesizers learn: the weights of the references are fixed."""
    for interface in interfaces:
        training.step(interface)
        interface.zero_grad()
    network.zero_grad()


@pytest.mark.parametrize("zero_first", [True, False])
def test_update_unlock_follows_the_paper(training, zero_first):
    layers = [linear(4, 5), linear(5, 5), linear(5, 2)]
    reference = Chain([layer.weight.detach() for layer in layers], LR)
    cuts = [BackwardInterface(synthesizer(5, 5), **training.options) for _ in range(2)]
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
            assert_close(layer.weight.grad, grad.t())
        frozen_step(network, cuts, training)
    for cut, regression in zip(cuts, reference.cuts, strict=True):
        assert_matches_regression(cut.synthesizer, regression)
        assert cut.stats().updates == 6


def test_a_users_optimizer_finds_the_gradients_after_the_same_pass():
    """They are those of the mean squared error in normalized units, added to ``grad``."""
    cut = BackwardInterface(synthesizer(4, 4), optim=None)
    layer = linear(3, 4)
    assert {*map(id, cut.parameters())} == {*map(id, cut.synthesizer.parameters())}
    target = double(5, 4)
    for repeat in (1, 2):
        h = torch.tanh(layer(double(5, 3)))
        (cut(h) * target).sum().backward()
        bias = cut.synthesizer.layers.last.bias
        rms = target.square().mean().sqrt()
        assert_close(bias.grad, -2 * (target / rms).sum(0) / target.numel() * repeat)


def test_forward_interface_follows_the_paper(training):
    earlier, later = linear(4, 5), linear(5, 2)
    reference = Regression(4, 5, LR)
    cut = ForwardInterface(synthesizer(4, 5), **training.options)
    for _ in range(6):
        x = double(6, 4)
        h = torch.tanh(earlier(x)).detach()
        predicted = reference.predict(x)
        crossed = cut(h, x)
        assert_close(crossed.detach(), predicted)
        reference.learn(x, h)
        later(crossed).square().mean().backward()
        training.step(cut)
        cut.zero_grad()
    assert_matches_regression(cut.synthesizer, reference)


def test_full_unlock_follows_the_paper(training):
    earlier, later = linear(4, 5), linear(5, 2)
    reference = Unlocked([earlier.weight.detach(), later.weight.detach()], LR)
    cut = BidirectionalInterface(synthesizer(4, 5), synthesizer(5, 5), **training.options)
    for _ in range(6):
        x = double(6, 4)
        expected = reference.gradients(x)
        later(cut(torch.tanh(earlier(x)), x)).square().mean().backward()
        assert_close(earlier.weight.grad, expected[0].t())
        assert_close(later.weight.grad, expected[1].t())
        frozen_step(nn.ModuleList([earlier, later]), [cut], training)
    assert_matches_regression(cut.forward_interface.synthesizer, reference.activation)
    assert_matches_regression(cut.backward_interface.synthesizer, reference.gradient)


def test_parts_that_only_exchange_messages_follow_the_paper(training):
    earlier, later = linear(4, 5), linear(5, 2)
    reference = Unlocked([earlier.weight.detach(), later.weight.detach()], LR)
    sender = BidirectionalInterface(synthesizer(4, 5), synthesizer(5, 5), **training.options)
    receiver = copy.deepcopy(sender)
    for _ in range(6):
        x = double(6, 4)
        expected = reference.gradients(x, together=False)
        sender.send(torch.tanh(earlier(x)), x)  # Its parameters have their gradients now.
        assert_close(earlier.weight.grad, expected[0].t())
        later(receiver.receive(x)).square().mean().backward()
        assert_close(later.weight.grad, expected[1].t())
        frozen_step(nn.ModuleList([earlier, later]), [sender, receiver], training)
        receiver.forward_interface.load_state_dict(sender.forward_interface.state_dict())
        sender.backward_interface.load_state_dict(receiver.backward_interface.state_dict())
    assert_matches_regression(receiver.forward_interface.synthesizer, reference.activation)
    assert_matches_regression(sender.backward_interface.synthesizer, reference.gradient)


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_truncated_recurrence_follows_the_paper(training, factor):
    u, w, v = linear(4, 4), linear(3, 4), linear(4, 2)
    weights = nn.ModuleList([u, w, v])
    reference = Recurrent([layer.weight.detach() for layer in weights], LR, factor)
    future = BackwardInterface(synthesizer(4, 4), **training.options)
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
            assert_close(layer.weight.grad, grad.t())
        frozen_step(weights, [future], training)
        assert_close(state.detach(), expected_state)
    assert_matches_regression(future.synthesizer, reference.future)


def test_send_and_receive_follow_the_paper(training):
    """``send`` teaches any message from any trigger, and ``receive`` predicts it."""
    for kind in (UnidirectionalInterface, ForwardInterface):
        interface = kind(synthesizer(4, 5), **training.options)
        reference = Regression(4, 5, LR)
        for _ in range(5):
            trigger, message = double(6, 4), double(6, 5)
            assert_close(interface.receive(trigger), reference.predict(trigger))
            interface.send(message, trigger)
            reference.learn(trigger, message)
            training.step(interface)
            interface.zero_grad()
        assert_matches_regression(interface.synthesizer, reference)
    assert not interface.receive(trigger.requires_grad_()).requires_grad
