"""Helpers for the tests of wrapped networks."""

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, synthesizer_context

# Arguments of ``DNI`` for the ways to learn that need no context.
WAYS = {
    "backward": {"unlock": "backward"},
    "exact every": {"unlock": "backward", "exact_every": 2},
    "update": {"unlock": "update"},
}

# The same, with learning in the forward pass.
ALL_WAYS = {**WAYS, "eager": {"eager": True}}


def on(name, way):
    """Return the arguments of ``DNI`` for a way, at a network of the zoo."""
    if way == "exact every" and name in ("lstm", "gru"):
        return {"recurrent": False, **WAYS[way]}  # such steps take cuts in space alone
    return WAYS[way]


def synthesizer_parameters(net):
    return [p for i in net.interfaces.values() for p in i.parameters()]


def fix_units(net):
    """Set the running sizes of gradients and errors so that they do not change any more."""
    for interface in net.interfaces.values():
        given = interface.error_input
        for scale in (interface.scale, None if given is None else given.scale):
            if scale is not None:
                scale.load_state_dict({"mean_square": 4.0, "count": 10**9})


def assert_equal(a, b):
    """Compare two lists of tensors to the bit."""
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


def gradients(network, example, x, seed=1):
    """Return the loss of an example of the zoo, and the gradients by parameter name."""
    torch.manual_seed(seed)  # of dropout
    network.zero_grad()
    loss = example.loss(network(x))
    loss.backward()
    return loss, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def cuts(network, x, **options):
    """Return the names of the cuts that a training step places; each has an interface."""
    net = DNI(network, **{"unlock": "update", **options})
    out = net(x)
    out = sum(o.sum() for o in out.values()) if isinstance(out, dict) else out.sum()
    out.backward()
    names = list(net.interfaces)
    net.unwrap()
    return names


def blocks():
    block = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(*block, nn.Linear(4, 2))


class ResidualBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.narrow(torch.relu(self.wide(self.norm(x))))


def residual(depth=8):
    blocks = nn.Sequential(*[ResidualBlock(16) for _ in range(depth)])
    return nn.Sequential(nn.Linear(4, 16), blocks, nn.Linear(16, 3))


def classifier():
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


class Run:
    """A wrapped classifier with its optimizer, trained on data that depends on the step alone."""

    def __init__(self, **options):
        torch.manual_seed(0)
        self.network = classifier()
        self.opt = torch.optim.Adam(self.network.parameters(), lr=0.01)
        options = {"context_size": 3, **options}
        self.takes_context = options["context_size"] is not None
        self.net = DNI(self.network, optim=self.opt, **options)

    def train(self, begin, end):
        for step in range(begin, end):
            draw = torch.Generator().manual_seed(step)
            x = torch.randn(8, 6, generator=draw)
            y = torch.randint(0, 3, (8,), generator=draw)
            self.opt.zero_grad()
            with synthesizer_context(y if self.takes_context else None):
                loss = F.cross_entropy(self.net(x), y)
            loss.backward()
            self.opt.step()

    def tensors(self):
        return [*self.network.parameters(), *synthesizer_parameters(self.net)]
