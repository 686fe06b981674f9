"""Other ways to per-example gradients: PyTorch alone, and libraries where they are installed."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

Step = Callable[[], object]


# Opacus and BackPACK need no gradient of the input, which is no reason to warn.
_WARNING = "Full backward hook is firing"


def other_ways(network: nn.Module, input: Tensor, target: Tensor) -> dict[str, Step]:
    """Return steps that compute the gradients of all examples, by name.

    Args:
        network: The network; the steps use copies of it.
        input: Input, with the examples in the first dimension.
        target: Labels.
    """
    warnings.filterwarnings("ignore", _WARNING)
    found = {"vmap(grad)": _vmap(network, input, target), "loop": _loop(network, input, target)}
    if all(isinstance(layer, (nn.Linear, nn.ReLU)) for layer in network.children()):
        found["outer products"] = _outer_products(network, input, target)
    for name, make in (("opacus", _opacus), ("backpack", _backpack)):
        try:
            found[name] = make(network, input, target)
        except ImportError:
            continue
    return found


def _vmap(network: nn.Module, input: Tensor, target: Tensor) -> Step:
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        output = torch.func.functional_call(network, parameters, (x[None],))
        return F.cross_entropy(output, y[None])

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))
    return lambda: gradients(parameters, input, target)


def _loop(network: nn.Module, input: Tensor, target: Tensor) -> Step:
    parameters = [*network.parameters()]

    def step() -> list[Tensor]:
        found = []
        for x, y in zip(input.split(1), target.split(1), strict=True):
            loss = F.cross_entropy(network(x), y)
            found.append(torch.autograd.grad(loss, parameters))
        return [torch.stack(own) for own in zip(*found, strict=True)]

    return step


def _outer_products(network: nn.Module, input: Tensor, target: Tensor) -> Step:
    """Return the way of Goodfellow 2015, written without further thought."""
    network = copy.deepcopy(network)

    def step() -> list[Tensor]:
        inputs, outputs, hidden = [], [], input
        for layer in network.children():
            inputs.append(hidden)
            hidden = layer(hidden)
            outputs.append(hidden)
        pairs = [
            (x, y)
            for layer, x, y in zip(network.children(), inputs, outputs, strict=True)
            if isinstance(layer, nn.Linear)
        ]
        loss = F.cross_entropy(hidden, target, reduction="sum")
        grads = torch.autograd.grad(loss, [y for _, y in pairs])
        found = []
        for (x, _), grad in zip(pairs, grads, strict=True):
            found += [torch.einsum("no,ni->noi", grad, x.detach()), grad]
        return found

    return step


def _opacus(network: nn.Module, input: Tensor, target: Tensor) -> Step:
    kind: Any = importlib.import_module("opacus.grad_sample").GradSampleModule
    model = kind(copy.deepcopy(network), loss_reduction="sum")

    def step() -> None:
        model.zero_grad()
        for parameter in model.parameters():
            parameter.grad_sample = None  # type: ignore[attr-defined]
        F.cross_entropy(model(input), target, reduction="sum").backward()

    return step


def _backpack(network: nn.Module, input: Tensor, target: Tensor) -> Step:
    backpack: Any = importlib.import_module("backpack")
    extensions: Any = importlib.import_module("backpack.extensions")
    model = backpack.extend(copy.deepcopy(network))
    criterion = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))

    def step() -> None:
        model.zero_grad()
        loss = criterion(model(input), target)
        with backpack.backpack(extensions.BatchGrad()):
            loss.backward()

    return step
