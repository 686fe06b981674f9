"""Train with interfaces around every kind of synthesizer."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    Conv2d_DNI,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
)

from .results import of_interfaces, STEPS

OPTIMIZERS = {"itself": "adam", "sgd": "sgd", "user": None}


class Own(nn.Module):
    """Predict gradients of feature maps, without normalising the target."""

    feature_dim = 1
    context_dim = 3
    normalize_target = False

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(8, 7, 3, padding=1), nn.Conv2d(7, 5, 3, padding=1)
        nn.init.zeros_(self.outer.weight)

    def forward(self, trigger, context):
        return self.outer(F.relu(self.inner(torch.cat([trigger, context], 1))))


# The synthesizer, the interface's context_size, and the shape of the activation.
KINDS = {
    "linear": (lambda: Linear_DNI(8, 7, 5), 3, (4, 5)),
    "sigmoid": (lambda: Linear_Sigmoid_DNI(8, 7, 5), 3, (4, 5)),
    "rnn": (lambda: RNN_DNI(8, 7, 5), 3, (4, 6, 5)),
    "conv": (lambda: Conv2d_DNI(8, 7, 5), 3, (4, 5, 6, 6)),
    "local": (lambda: LocalLoss_DNI(5, 7, 3), 3, (4, 5)),
    "basic": (lambda: BasicSynthesizer(5, 1, 7, context_dim=3), None, (4, 5)),
    "own": (Own, None, (4, 5, 6, 6)),
}


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def labels():
    return torch.randint(3, (4,))


class Front(nn.Module):
    """Scale and shift an activation. The gradients show what the interface sends back."""

    def __init__(self, shape):
        super().__init__()
        self.scale, self.shift = nn.Parameter(double(*shape)), nn.Parameter(double(*shape))

    def forward(self, x):
        return torch.tanh(x * self.scale + self.shift)


def steps(network, interfaces, step):
    """Train a network by ``step``, and the interfaces that leave training to the user."""
    opt = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
    own = [p for interface in interfaces for p in interface.parameters()]
    their_opt = torch.optim.Adam(own, lr=1e-2) if own else None
    for i in range(STEPS):
        opt.zero_grad()
        step(i)
        opt.step()
        if their_opt is not None:
            their_opt.step()
            their_opt.zero_grad()
    return [*network.state_dict().values(), *of_interfaces(*interfaces)]


def made(kind, optim):
    """Return an interface and the shape of the activation."""
    make, context_size, shape = KINDS[kind]
    return BackwardInterface(make().double(), optim=optim, context_size=context_size), shape


def called(kind, optim):
    interface, shape = made(kind, optim)
    front, weight = Front(shape[1:]), double(*shape)

    def step(i):
        with synthesizer_context(labels()):
            crossed = interface(front(double(*shape)))
        (crossed * weight).square().mean().backward()

    return steps(front, [interface], step)


def saved(kind, optim):
    """Load an interface's state into a fresh one after each step."""
    interfaces, (shape, _) = zip(*(made(kind, optim) for _ in range(2)), strict=True)
    front = Front(shape[1:])

    def step(i):
        first, second = interfaces if i % 2 else interfaces[::-1]
        first.load_state_dict(second.state_dict())
        with synthesizer_context(labels()):
            first(front(double(*shape))).square().mean().backward()

    return steps(front, interfaces, step)


def moved(kind, optim):
    """Move an interface to another type and back; call it in evaluation now and then."""
    interface, shape = made(kind, optim)
    front = Front(shape[1:])

    def step(i):
        if i == STEPS // 2:
            interface.float().double()
        interface.train(i % 4 != 1)
        with synthesizer_context(labels()):
            crossed = interface(front(double(*shape)))
            interface.backward(front(double(*shape)), 0.1)
        crossed.square().mean().backward()

    return steps(front, [interface], step)


CASES = {}
for how, optim in OPTIMIZERS.items():
    for name in KINDS:
        CASES[f"interfaces / called / {how} / {name}"] = partial(called, name, optim)
        if how != "sgd":
            CASES[f"interfaces / moved / {how} / {name}"] = partial(moved, name, optim)
            CASES[f"interfaces / saved / {how} / {name}"] = partial(saved, name, optim)
