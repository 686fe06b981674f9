"""What the tests of lessons over several windows share."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    DNI,
    Future,
    Linear_DNI,
)
from tests.support.recurrent_zoo import detached, NETWORKS, rebuilt, side_by_side, tensors

LAMBDA, FACTOR = 0.7, 0.8


class Plain_DNI(Linear_DNI):
    """In the gradients' own units, so that all can be written out."""

    normalize_target = False

    def __init__(self, *sizes, num_layers=0):
        super().__init__(*sizes, num_layers=num_layers, norm=None)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)


class Sum(torch.optim.Optimizer):
    """Adds up what would be learned."""

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


def returns(network, states, pairs, predict, lambda_, factor, name, future):
    """G[k], from the last window to the first, by the equation; ``future`` is that after all."""
    goals, after = [], future
    for k in reversed(range(len(pairs))):
        leaf = side_by_side(states[k], name).detach().requires_grad_()
        out, state = network(pairs[k][0], unjoined(leaf, states[k], name))
        last = side_by_side(state, name)
        told = predict(last.detach())
        message = told if after is None else (1 - lambda_) * told + lambda_ * after
        total = window_loss(out, pairs[k][1]) + (factor * message * last).sum()
        (after,) = torch.autograd.grad(total, leaf)
        goals.append(after)
    return goals[::-1]


def unjoined(leaf, like, name):
    """The state whose tensors stand side by side in ``leaf``."""
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


def run(net, pairs, state=None):
    """Windows, each backpropagated; the states that they began with."""
    states = []
    for x, y in pairs:
        states.append(state)
        out, state = net(x, state)
        window_loss(out, y).backward()
        state = detached(state)
    return states, state


def wrapped(name, target, num_layers=0, **given):
    torch.manual_seed(1)
    build, recurrent = NETWORKS[name]
    options = {"factor": FACTOR, "bound": None, "guard": False, **given}
    future = Future(target=target, **options)
    bare = build().double()
    net = DNI(
        copy.deepcopy(bare),
        recurrent=recurrent,
        future=future,
        dni_network=Plain_DNI,
        dni_params={"num_layers": num_layers},
        grad_optim=Sum,
    )
    return bare, net
