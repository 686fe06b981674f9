"""Helpers for the tests of temporal interfaces."""

import torch
from torch import nn

from pytorch_dni import BasicSynthesizer, DNI, FutureGradient, StateSpec
from tests.support.reference import Windows

LR = 0.2


class TanhStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.u, self.w = nn.Linear(4, 4, bias=False), nn.Linear(3, 4, bias=False)

    def forward(self, x, state):
        return torch.tanh(self.u(state) + self.w(x))


class TanhNetwork(nn.Module):
    """h' = tanh(h U + x W) with the output h' V, without biases."""

    def __init__(self):
        super().__init__()
        self.core = TanhStep()
        self.v = nn.Linear(4, 2, bias=False)

    def forward(self, xs, state):
        outs = []
        for x in xs:
            state = self.core(x, state)
            outs.append(self.v(state))
        return torch.stack(outs), state


def network_and_reference(bound=0.5, probe=3, factor=0.7):
    """Return a network, the wrapper around it, and the reference with the same weights."""
    network = TanhNetwork().double()
    weights = [w.weight.detach() for w in (network.core.u, network.core.w, network.v)]
    reference = Windows(weights, LR, factor, bound, probe)
    net = DNI(
        network,
        recurrent={"core": StateSpec(argument=1, result=None)},
        future=FutureGradient(factor, bound, probe, guard=False),
        dni_network=BasicSynthesizer,
        grad_optim="sgd",
        grad_lr=LR,
    )
    return network, net, reference


def record_lessons(interface):
    """Return a list that receives the message and the mask of every later lesson."""
    lessons, lesson = [], interface.learn

    def recorded(prediction, message, valid_mask=None):
        lessons.append((message, valid_mask))
        return lesson(prediction, message, valid_mask)

    interface.learn = recorded
    return lessons
