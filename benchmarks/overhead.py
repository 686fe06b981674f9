"""Step time of the wrapper over a hand-written loop, and over plain backpropagation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from pytorch_dni import DNI, Linear_DNI, LocalLoss_DNI, synthesizer_context

from .hand_written import copy_synthesizer, HandWrittenLoop, synthesizer_adam
from .report import markdown_table
from .timing import time_steps

WIDTH, CLASSES, BATCH = 256, 10, 256
_LEARNING_RATE = 3e-4


def network(depth: int = 3, inputs: int = 784) -> nn.Sequential:
    """Build ``depth`` times [Linear, BatchNorm, ReLU], and a linear layer."""
    layers: list[nn.Module] = []
    for size in [inputs, *[WIDTH] * (depth - 1)]:
        layers += [nn.Linear(size, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def by_hand(network: nn.Sequential, wrapped: DNI, optimizer: Optimizer) -> HandWrittenLoop:
    """Return the hand-written loop for a network.

    Args:
        network: The network.
        wrapped: A wrapper of the same network. The loop has the same cuts, and its synthesizers
            start as copies of those of the wrapper.
        optimizer: Optimizer of the network.
    """
    ends = [int(name) + 1 for name in wrapped.interfaces]
    pairs = zip([0, *ends], [*ends, len(network)], strict=True)
    parts: list[nn.Module] = [network[start:end] for start, end in pairs]
    synthesizers: list[nn.Module] = [
        copy_synthesizer(interface.synthesizer) for interface in wrapped.interfaces.values()
    ]
    return HandWrittenLoop(parts, synthesizers, optimizer, synthesizer_adam(synthesizers), CLASSES)


def training_steps(device: str = "cpu", depth: int = 3) -> dict[str, Callable[[], object]]:
    """Return a training step on random data for each method."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, 784, device=device)
    y = torch.randint(0, CLASSES, (BATCH,), device=device)
    original = network(depth).to(device)
    wrapped, dni_step = _dni_step(original, x, y)
    _, local_loss_step = _dni_step(original, x, y, dni_network=LocalLoss_DNI)
    copied = copy.deepcopy(original)
    loop = by_hand(copied, wrapped, _adam(copied))
    optimizer = _adam(original)

    def backpropagation_step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(original(x), y).backward()
        optimizer.step()

    return {
        "by hand": lambda: loop.step(x, y),
        "DNI": dni_step,
        "DNI, local loss": local_loss_step,
        "backpropagation": backpropagation_step,
    }


def _dni_step(
    network: nn.Sequential, x: Tensor, y: Tensor, **arguments: Any
) -> tuple[DNI, Callable[[], object]]:
    """Return a wrapped copy of a network, and its training step."""
    copied = copy.deepcopy(network)
    optimizer = _adam(copied)
    arguments = {"dni_network": Linear_DNI, "context_size": CLASSES, **arguments}
    net = DNI(copied, optim=optimizer, example_input=x, **arguments)

    def step() -> None:
        optimizer.zero_grad()
        with synthesizer_context(y):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()

    return net, step


def _adam(network: nn.Module) -> Optimizer:
    return torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)


def run(device: str) -> tuple[str, dict[str, Any]]:
    """Time the training steps.

    Returns:
        A table and its figures.
    """
    timings = time_steps(training_steps(device))
    bp_ratio = timings["backpropagation"].ratio
    rows = [
        [name, f"{t.milliseconds:.2f}", f"{t.ratio:.2f} ({t.range})", f"{t.ratio / bp_ratio:.2f}"]
        for name, t in timings.items()
    ]
    header = ["step", "ms", "over by hand (range)", "over backpropagation"]
    figures = {name: timing._asdict() for name, timing in timings.items()}
    return markdown_table(header, rows), figures
