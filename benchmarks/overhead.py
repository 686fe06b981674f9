"""What the wrapper costs over a loop written by hand, and over plain backpropagation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, LocalLoss_DNI, synthesizer_context

from .hand_written import HandWritten
from .measure import steps, table

WIDTH, CLASSES, BATCH = 256, 10, 256


def network(depth: int = 3, inputs: int = 784) -> nn.Sequential:
    """``depth`` times [Linear, BatchNorm, ReLU], and a linear layer."""
    layers: list[nn.Module] = []
    for size in [inputs, *[WIDTH] * (depth - 1)]:
        layers += [nn.Linear(size, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def by_hand(bare: nn.Sequential, wrapped: DNI, lr: float) -> HandWritten:
    """The hand-written loop for a network, beginning with the wrapper's synthesizers."""
    bounds = [int(name) + 1 for name in wrapped.interfaces]
    parts = [bare[a:b] for a, b in zip([0, *bounds], [*bounds, len(bare)], strict=True)]
    made = [copy.deepcopy(i.synthesizer.layers) for i in wrapped.interfaces.values()]
    parameters = [parameter for synthesizer in made for parameter in synthesizer.parameters()]
    return HandWritten(
        parts,
        made,
        torch.optim.Adam(bare.parameters(), lr=lr),
        torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.99), fused=True),
        CLASSES,
    )


def contestants(device: str = "cpu", depth: int = 3) -> dict[str, Callable[[], object]]:
    """Steps of training on random data: by hand, wrapped, and by backpropagation."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, 784, device=device)
    y = torch.randint(0, CLASSES, (BATCH,), device=device)
    bare = network(depth).to(device)

    def wrapped(**options: object) -> tuple[DNI, Callable[[], object]]:
        inner = copy.deepcopy(bare)
        opt = torch.optim.Adam(inner.parameters(), lr=3e-4)
        net = DNI(inner, optim=opt, example_input=x, context_size=CLASSES, **options)

        def step() -> None:
            opt.zero_grad()
            with synthesizer_context(y):
                loss = F.cross_entropy(net(x), y)
            loss.backward()
            opt.step()

        return net, step

    net, dni_step = wrapped()
    _, local_step = wrapped(dni_network=LocalLoss_DNI)
    hand = by_hand(copy.deepcopy(bare), net, 3e-4)
    opt = torch.optim.Adam(bare.parameters(), lr=3e-4)

    def backpropagation() -> None:
        opt.zero_grad()
        F.cross_entropy(bare(x), y).backward()
        opt.step()

    return {
        "by hand": lambda: hand.step(x, y),
        "DNI": dni_step,
        "DNI, local loss": local_step,
        "backpropagation": backpropagation,
    }


def run(device: str) -> tuple[str, dict[str, Any]]:
    """The table, and its figures."""
    timings = steps(contestants(device))
    bp = timings["backpropagation"].ratio
    rows = [
        [
            name,
            f"{t.milliseconds:.2f}",
            f"{t.ratio:.2f} ({t.low:.2f}-{t.high:.2f})",
            f"{t.ratio / bp:.2f}",
        ]
        for name, t in timings.items()
    ]
    header = ["step", "ms", "over by hand (range)", "over backpropagation"]
    return table(header, rows), {name: timing._asdict() for name, timing in timings.items()}
