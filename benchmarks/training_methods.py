"""The methods of training that the benchmarks compare."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pytorch_dni import DNI, LocalLoss_DNI, synthesizer_context

from .deep_networks import CLASSES, DeepNetwork, NetworkType

Step = Callable[[], None]

#: Backpropagation; with activation checkpointing, in as many segments as the square root of the
#: number of blocks, and in one segment for each block; synthetic gradients from the activation,
#: with a cut after each block, without and with ``eager=True``; local losses with ``eager=True``.
METHODS = ("backpropagation", "checkpoint, root", "checkpoint, each", "default", "eager", "local")


class TrainingSetup(NamedTuple):
    """A network that is ready to be trained.

    Attributes:
        network: The network.
        step: Takes one training step.
        synthesizer_parameters: Parameters of the synthesizers.
        optimizers: The optimizers of the network and of the synthesizers.
    """

    network: nn.Module
    step: Step
    synthesizer_parameters: list[Tensor]
    optimizers: list[Optimizer]


def set_up_training(
    network_type: NetworkType, depth: int, method: str, device: str, backend: str | None = None
) -> TrainingSetup:
    """Build a network and take two training steps, which are the slowest.

    Args:
        network_type: Type of the network.
        depth: Number of its blocks.
        method: One of :data:`METHODS`.
        device: Where it is trained.
        backend: Backend of ``torch.compile``; None does not compile.
    """
    torch.manual_seed(0)
    network = network_type.build(depth).to(device)
    x = torch.randn(network_type.input_shape, device=device)
    y = torch.randint(CLASSES, (network_type.input_shape[0],), device=device)
    if method.startswith("checkpoint"):
        network.use_checkpoints(depth if method.endswith("each") else round(math.sqrt(depth)))
    model = _wrap(network, method, network_type.synthesizer_width)
    if backend is not None:
        model.compile(backend=backend)
    step = _training_step(network, model, x, y, y if method == "local" else None)
    # The first step places the cuts; the second one checks that nothing changes activations in
    # place.
    optimizers = _stepped_optimizers(lambda: [step() for _ in range(2)])
    synthesizer_parameters: list[Tensor] = []
    if isinstance(model, DNI):
        for interface in model.interfaces.values():
            synthesizer_parameters += interface.synthesizer.parameters()
    return TrainingSetup(network, step, synthesizer_parameters, optimizers)


def _wrap(network: DeepNetwork, method: str, synthesizer_width: int) -> nn.Module:
    """Return the module whose forward pass a training step calls."""
    if method in ("default", "eager"):
        return DNI(
            network,
            layers="blocks.*",
            unlock="update",
            eager=method == "eager",
            hidden_size=synthesizer_width,
        )
    if method == "local":
        return DNI(
            network,
            layers="blocks.*",
            eager=True,
            dni_network=LocalLoss_DNI,
            context_size=CLASSES,
        )
    return network


def _training_step(
    network: nn.Module, model: nn.Module, x: Tensor, y: Tensor, context: Tensor | None
) -> Step:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        with synthesizer_context(context):
            output = model(x)
        F.cross_entropy(output, y).backward()
        optimizer.step()

    return step


def _stepped_optimizers(function: Callable[[], object]) -> list[Optimizer]:
    """Call a function and return the optimizers that take a step in it."""
    found: dict[Optimizer, None] = {}

    def note(optimizer: Optimizer, *arguments: object) -> None:
        found[optimizer] = None

    handle = register_optimizer_step_pre_hook(note)
    try:
        function()
    finally:
        handle.remove()
    return [*found]
