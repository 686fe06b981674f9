"""A window whose backward pass raises changes nothing: training goes on as if it had never run."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI
from tests.recurrent.test_broken_windows import MODES
from tests.support.recurrent_zoo import data, Loop, Sequence
from tests.support.wrapped import assert_equal

#: Where the backward pass raises: at the output, in a part of it, when all states have gradients.
PLACES = {
    "output": lambda net, out: out.register_hook(stop),
    "head": lambda net, out: net.head.weight.register_hook(stop),
    "core": lambda net, out: [*net.core.parameters()][-1].register_hook(stop),
    "end": lambda net, out: next(net.core.parameters()).register_post_accumulate_grad_hook(stop),
}


def stop(*args):
    raise KeyboardInterrupt


class Training:
    """A wrapped net with its optimizer, trained on windows."""

    def __init__(self, mode="bootstrap", make=Loop, kind=nn.GRUCell):
        torch.manual_seed(0)
        self.net = DNI(make(kind).double(), **MODES[mode])
        self.critic = mode == "critic"
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)

    def forward(self, x, y, state):
        out, new = self.net(x, state)
        if self.critic:
            self.net.observe(F.mse_loss(out, y, reduction="none").mean((0, 2)) / len(y[0]))
        return out, new, F.mse_loss(out, y)

    def step(self, x, y, state):
        _, new, loss = self.forward(x, y, state)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return new

    def broken_step(self, x, y, state, place="core", windows=1):
        total, first = 0.0, state
        for _ in range(windows):
            out, state, loss = self.forward(x, y, state)
            total = total + loss
        handle = PLACES[place](self.net, out)
        with pytest.raises(KeyboardInterrupt):
            total.backward()
        handle.remove()
        self.optimizer.zero_grad()
        assert first is not state
        return state

    def everything(self):
        """Return all of the net: parameters, synthesizers, optimizer, what was measured, states."""
        return [*self.net.state_dict().values()]


def trained(mode, place=None, starts=(), windows=1, **kind):
    training, state = Training(mode, **kind), None
    broken = data(windows=5)[4]
    for i, (x, y) in enumerate(data(windows=12)):
        state = None if i in starts else state
        if place is not None and i % 3 == 2:
            training.broken_step(*broken, state, place, windows)
        state = training.step(x, y, state)
    return training.everything()


@pytest.mark.parametrize("starts", [(), (5, 8)])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", MODES)
def test_training_equals_training_without_the_broken_steps(mode, place, starts):
    assert_equal(trained(mode, place, starts), trained(mode, None, starts))


@pytest.mark.parametrize("mode", ["bootstrap", "auxiliary", "critic"])
def test_several_windows_of_one_broken_backward_pass(mode):
    assert_equal(trained(mode, "core", windows=3), trained(mode))


def test_layers_of_pytorch():
    kind = {"make": Sequence, "kind": nn.LSTM}
    assert_equal(trained("bootstrap", "core", **kind), trained("bootstrap", **kind))


@pytest.mark.parametrize("mode", MODES)
def test_a_broken_first_step(mode):
    """Its interface stays, and has learned nothing."""
    (x, y), *windows = data(windows=5)
    broken, whole = Training(mode), Training(mode)
    broken.broken_step(x, y, None)
    for training in (broken, whole):
        state = None
        for window in windows:
            state = training.step(*window, state)
    assert_equal(broken.everything(), whole.everything())


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "critic"])
def test_training_may_go_on_from_the_last_state_of_the_broken_window(mode):
    """It equals training in which that window has no backward pass: the state is carried on."""
    found = []
    for breaks in (False, True):
        training, state = Training(mode), None
        for i, (x, y) in enumerate(data(windows=8)):
            if i == 4:
                go_on = training.broken_step if breaks else training.forward
                state = go_on(x, y, state) if breaks else go_on(x, y, state)[1]
            else:
                state = training.step(x, y, state)
        found.append(training.everything())
    assert_equal(*found)


@pytest.mark.parametrize("mode", MODES)
def test_a_broken_backward_pass_may_be_tried_again(mode):
    found = []
    for breaks in (False, True):
        training, state = Training(mode), None
        for i, (x, y) in enumerate(data(windows=8)):
            _, state, loss = training.forward(x, y, state)
            if breaks and i == 4:
                handle = PLACES["end"](training.net, None)
                with pytest.raises(KeyboardInterrupt):
                    loss.backward(retain_graph=True)
                handle.remove()
            training.optimizer.zero_grad()
            loss.backward()
            training.optimizer.step()
        found.append(training.everything())
    assert_equal(*found)
