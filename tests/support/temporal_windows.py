"""What the tests of temporal interfaces share."""

import torch
from torch import nn

from pytorch_dni import (
    BasicSynthesizer,
    DNI,
    Future,
    StateSpec,
)
from tests.support.reference import Windows


class Plain(nn.Module):
    """h' = tanh(h U + x W), without biases."""

    def __init__(self):
        super().__init__()
        self.core = Step()
        self.v = nn.Linear(4, 2, bias=False)

    def forward(self, xs, state):
        outs = []
        for x in xs:
            state = self.core(x, state)
            outs.append(self.v(state))
        return torch.stack(outs), state


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.u, self.w = nn.Linear(4, 4, bias=False), nn.Linear(3, 4, bias=False)

    def forward(self, x, state):
        return torch.tanh(self.u(state) + self.w(x))


STEP = {"core": StateSpec(argument=1, result=None)}


LR = 0.2


def pair(bound=0.5, probe=3, factor=0.7):
    network = Plain().double()
    weights = [w.weight.detach() for w in (network.core.u, network.core.w, network.v)]
    reference = Windows(weights, LR, factor, bound, probe)
    net = DNI(
        network,
        recurrent=STEP,
        future=Future(factor, bound, probe, guard=False),
        dni_network=BasicSynthesizer,
        grad_optim="sgd",
        grad_lr=LR,
    )
    return network, net, reference
