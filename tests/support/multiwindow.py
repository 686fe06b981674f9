"""Helpers for the tests of targets that span several windows."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, FutureGradient, Linear_DNI
from tests.support.recurrent_zoo import detached, NETWORKS, rebuilt, side_by_side, tensors

LAMBDA, FACTOR = 0.7, 0.8


class Unscaled_DNI(Linear_DNI):
    """A synthesizer in the units of the gradients, so that the equations need no scale."""

    normalize_target = False

    def __init__(self, *sizes, num_layers=0):
        super().__init__(*sizes, num_layers=num_layers, norm=None)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)


class GradientSum(torch.optim.Optimizer):
    """Sums the gradients of all steps and changes no parameter."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        self.steps = 0

    def step(self):
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                total = self.state[parameter].setdefault("sum", torch.zeros_like(parameter))
                if parameter.grad is not None:
                    total += parameter.grad


def window_loss(out, y):
    return F.mse_loss(out, y)


def lambda_returns(network, states, pairs, predict, lambda_, factor, name, future):
    """Return the targets G[k] of windows by the equation, computed from the last to the first.

    ``future`` is the target of the state after the last window, or None where only the prediction
    is known there.
    """
    targets, after = [], future
    for k in reversed(range(len(pairs))):
        leaf = side_by_side(states[k], name).detach().requires_grad_()
        out, state = network(pairs[k][0], unjoined(leaf, states[k], name))
        last = side_by_side(state, name)
        predicted = predict(last.detach())
        message = predicted if after is None else (1 - lambda_) * predicted + lambda_ * after
        total = window_loss(out, pairs[k][1]) + (factor * message * last).sum()
        (after,) = torch.autograd.grad(total, leaf)
        targets.append(after)
    return targets[::-1]


def unjoined(leaf, like, name):
    """Return the state whose tensors stand side by side in ``leaf``, one row for each sample."""
    place = 0

    def next_tensor():
        nonlocal place
        for t in tensors(like):
            by_sample = t.transpose(0, 1) if name in ("lstm", "gru", "rnn") else t
            size = by_sample[0].numel()
            part = leaf[:, place : place + size].reshape(by_sample.shape)
            place += size
            yield part.transpose(0, 1).contiguous() if name in ("lstm", "gru", "rnn") else part

    return rebuilt(like, next_tensor())


def run_windows(net, pairs, state=None):
    """Run and backpropagate windows; return the states that they began with, and the last one."""
    states = []
    for x, y in pairs:
        states.append(state)
        out, state = net(x, state)
        window_loss(out, y).backward()
        state = detached(state)
    return states, state


def bare_and_wrapped(name, target, num_layers=0, grad_optim=GradientSum, **given):
    """Return a network of the zoo, and a copy of it in a wrapper with the given target.

    ``given`` are arguments of ``FutureGradient``.
    """
    torch.manual_seed(1)
    build, recurrent = NETWORKS[name]
    options = {"factor": FACTOR, "bound": None, "guard": False, **given}
    bare = build().double()
    net = DNI(
        copy.deepcopy(bare),
        recurrent=recurrent,
        future=FutureGradient(target=target, **options),
        dni_network=Unscaled_DNI,
        dni_params={"num_layers": num_layers},
        grad_optim=grad_optim,
    )
    return bare, net
