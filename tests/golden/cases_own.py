"""Train networks and synthesizers such as users write themselves."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BasicSynthesizer,
    Conv2d_DNI,
    Critic_DNI,
    DNI,
    DNI_Network,
    Linear_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
)

from .results import of_wrapper, STEPS
from .shared import FutureGradient


class Residual_DNI(DNI_Network):
    """Predict by a module that autograd differentiates."""

    features_last = True

    def __init__(self, input_size, hidden_size, output_size):
        super().__init__(input_size, hidden_size, output_size)
        self.inner = nn.Linear(input_size, hidden_size)
        self.outer = nn.Linear(hidden_size, output_size)
        self.direct = nn.Linear(input_size, output_size)
        for layer in (self.outer, self.direct):
            nn.init.zeros_(layer.weight)

    def forward(self, input, hidden):
        between = F.leaky_relu(self.inner(input))
        return self.outer(between) + self.direct(input), {"calls": between.mean()}


class ByAutograd(LocalLoss_DNI):
    """Compute the gradient of a local loss by the method of the base class."""

    def loss_gradient(self, activation, target, gain):
        return super(LocalLoss_DNI, self).loss_gradient(activation, target, gain)


@dataclass
class Record:
    hidden: torch.Tensor
    size: int


class Pair(NamedTuple):
    hidden: torch.Tensor
    mask: torch.Tensor


class Part(nn.Module):
    """Return the activation inside a record."""

    def __init__(self, make):
        super().__init__()
        self.make, self.layer = make, nn.Linear(6, 6)

    def forward(self, x):
        return self.make(torch.tanh(self.layer(x)))


class Records(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Part(lambda h: Record(h, len(h)))
        self.second = Part(lambda h: Pair(h, h > 0))
        self.third = Part(lambda h: [h])
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.third(self.second(self.first(x).hidden).hidden)[0])


def unflattened():
    return nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def flattened():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def maps():
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def convolution_3d():
    return nn.Sequential(nn.Conv3d(1, 3, 3), nn.ReLU(), nn.Conv3d(3, 2, 2))


def half_frozen():
    """Return a network whose layers before the cut are frozen."""
    network = flattened()
    for p in network[1].parameters():
        p.requires_grad_(False)
    return network


LINEAR = {"dni_network": Linear_DNI}
CONVOLUTION = {"dni_network": Conv2d_DNI}
PARTS = {"layers": ["first", "second", "third"], **LINEAR}
NETWORKS = {
    "records": (Records, (5, 6), PARTS),
    "records, eager": (Records, (5, 6), {"eager": True, **PARTS}),
    "records, full": (Records, (5, 6), {"unlock": "full", **PARTS}),
    "unflattened, full": (unflattened, (5, 6), {"unlock": "full", **LINEAR}),
    "flattened, full": (flattened, (5, 2, 3), {"unlock": "full", **LINEAR}),
    "3d, full": (convolution_3d, (5, 1, 4, 4, 4), {"unlock": "full", **CONVOLUTION}),
    "maps, full": (maps, (5, 1, 8, 8), {"unlock": "full", **CONVOLUTION}),
    "maps, own": (maps, (5, 1, 8, 8), {"dni_network": Residual_DNI}),
    "vectors, own": (flattened, (5, 6), {"dni_network": Residual_DNI}),
    "vectors, own, eager": (flattened, (5, 6), {"dni_network": Residual_DNI, "eager": True}),
    "vectors, own, two steps": (flattened, (5, 6), {"dni_network": Residual_DNI, "grad_steps": 2}),
    "maps, by autograd": (maps, (5, 1, 8, 8), {"dni_network": ByAutograd}),
    "vectors, by autograd": (flattened, (5, 6), {"dni_network": ByAutograd}),
    "half frozen": (half_frozen, (5, 6), LINEAR),
    "half frozen, eager": (half_frozen, (5, 6), {"eager": True, **LINEAR}),
}  # fmt: skip


def trained(build, shape, options):
    network = build().double()
    opt = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    net = DNI(network, opt, context_size=3, **options)
    for _ in range(STEPS):
        opt.zero_grad()
        with synthesizer_context(torch.randint(3, shape[:1])):
            out = net(torch.randn(shape, dtype=torch.float64))
        out.square().mean().backward()
        opt.step()
    return of_wrapper(net)


def time_first(context_shape, kind):
    """Train on sequences whose first dimension may be the time, with labels of some shape."""
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    net = DNI(network, dni_network=kind, context_size=3)
    for _ in range(STEPS):
        with synthesizer_context(torch.randint(3, context_shape)):
            out = net(torch.randn(4, 6, 6, dtype=torch.float64)[:, :5])
        out.square().mean().backward()
    return [*of_wrapper(net), *(p.grad for p in net.parameters())]


def on_windows(network, shape, **options):
    """Train a recurrent network, or a cell, on windows."""
    net = DNI(network.double(), **options)
    opt, state = torch.optim.SGD(net.parameters(), lr=0.05), None
    for _ in range(STEPS):
        returned = net(torch.randn(shape, dtype=torch.float64), state)
        out, state = returned if isinstance(returned, tuple) else (returned, returned)
        opt.zero_grad()
        out.square().mean().backward()
        opt.step()
    return of_wrapper(net)


def without_batch(kind, shape):
    return on_windows(kind(3, 4), shape)


class Noisy(nn.Module):
    """Draw random numbers and change buffers in each forward pass."""

    def __init__(self):
        super().__init__()
        self.core, self.norm, self.drop = nn.GRU(3, 4), nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, x, state=None):
        return self.core(self.drop(self.norm(x.flatten(0, 1)).view_as(x)), state)


def noisy(target):
    future = FutureGradient(factor=0.8, target=target, windows=2, probe=3)
    options = {"dni_network": Linear_DNI, "dni_params": {"norm": None}}
    return on_windows(Noisy(), (3, 5, 3), future=future, **options)


# Builders of synthesizers, shapes of their inputs and of their contexts.
SYNTHESIZERS = {
    "linear": (lambda: Linear_DNI(6, 7, 5), (4, 6), None),
    "linear, two layers": (lambda: Linear_DNI(6, 7, 5, num_layers=2, norm="layer"), (4, 6), None),
    "rnn": (lambda: RNN_DNI(6, 7, 5), (4, 3, 6), None),
    "rnn, gru": (lambda: RNN_DNI(6, 7, 5, cell="gru", batch_first=False), (4, 3, 6), None),
    "local": (lambda: LocalLoss_DNI(6, 7, 5), (4, 6), None),
    "critic": (lambda: Critic_DNI(6, 7, 6), (4, 6), None),
    "basic": (lambda: BasicSynthesizer(5, 1, 7, 6), (4, 6), None),
    "basic, context": (lambda: BasicSynthesizer(5, 1, 7, 6, 3), (4, 6), (4, 3)),
}


def called(make, shape, context_shape):
    """Call a synthesizer; return its output and the gradients of the output's mean square."""
    synthesizer = make().double()
    for p in synthesizer.parameters():
        nn.init.normal_(p, std=0.3)
    given = None if context_shape is None else torch.randn(context_shape, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    out = synthesizer(x, given)
    out = out[0] if isinstance(out, tuple) else out
    return [out, *torch.autograd.grad(out.square().mean(), [x, *synthesizer.parameters()])]


CASES = {f"own / {name}": partial(trained, *row) for name, row in NETWORKS.items()}
CASES |= {f"synthesizers / {name}": partial(called, *row) for name, row in SYNTHESIZERS.items()}
CASES["own / without batch / LSTM"] = partial(without_batch, nn.LSTM, (2, 3))
CASES["own / without batch / GRUCell"] = partial(without_batch, nn.GRUCell, (3,))
for target in ("bootstrap", "returns", "traces"):
    CASES[f"own / noisy / {target}"] = partial(noisy, target)
for shape in ((5,), (4, 5), (4,)):
    for kind in (Linear_DNI, LocalLoss_DNI):
        title = f"own / time first / {kind.__name__} / {len(shape)} from {shape[0]}"
        CASES[title] = partial(time_first, shape, kind)
