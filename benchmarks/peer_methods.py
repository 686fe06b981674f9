"""The methods of training that the benchmark ``peers`` compares: own, and those of BioTorch."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from pytorch_dni import DNI, synthesizer_context
from tasks.task import Batch

LR = 1e-3

#: The modes of BioTorch that are compared. It has three modes of sign symmetry; in "usf" the
#: feedback weights are the signs of the weights, all of one size.
BIOTORCH_MODES = {
    "BioTorch, direct feedback alignment": "dfa",
    "BioTorch, feedback alignment": "fa",
    "BioTorch, sign symmetry": "usf",
}


class Training(NamedTuple):
    """A network in training.

    Attributes:
        model: The network, wrapped or converted by the method.
        optimizer: Its optimizer.
        forward: Computes the output in training mode for a batch.
    """

    model: nn.Module
    optimizer: Optimizer
    forward: Callable[[Batch], Tensor]

    def step(self, batch: Batch) -> None:
        """Take one training step."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.forward(batch), batch.target).backward()
        self.optimizer.step()


#: A method of training: it takes a network, which it may change, and the number of classes.
Method = Callable[[nn.Module, int], Training]


def import_biotorch() -> Any | None:
    """Return the class of BioTorch that converts a network, or None if it is not installed."""
    try:
        return importlib.import_module("biotorch.module.biomodule").BioModule
    except ImportError:
        return None


def methods(bio_module: Any | None) -> dict[str, Method]:
    """Return the methods by name, backpropagation first.

    Args:
        bio_module: The class of BioTorch that converts a network; None leaves its methods out.
    """
    found: dict[str, Method] = {
        "backpropagation": _backpropagation,
        "DNI": _learned_feedback,
        "DNI, labels as context": _labels_as_context,
    }
    if bio_module is not None:
        for name, mode in BIOTORCH_MODES.items():
            found[name] = _biotorch_method(bio_module, mode)
    return found


def _adam(network: nn.Module) -> Optimizer:
    return torch.optim.Adam(network.parameters(), lr=LR, fused=True)


def _backpropagation(network: nn.Module, classes: int) -> Training:
    return Training(network, _adam(network), lambda batch: network(batch.input))


def _learned_feedback(network: nn.Module, classes: int) -> Training:
    optimizer = _adam(network)
    model = DNI(network, optim=optimizer)
    return Training(model, optimizer, lambda batch: model(batch.input))


def _labels_as_context(network: nn.Module, classes: int) -> Training:
    optimizer = _adam(network)
    model = DNI(network, optim=optimizer, context_size=classes)

    def forward(batch: Batch) -> Tensor:
        with synthesizer_context(batch.context):
            output: Tensor = model(batch.input)
        return output

    return Training(model, optimizer, forward)


def _biotorch_method(bio_module: Any, mode: str) -> Method:
    def method(network: nn.Module, classes: int) -> Training:
        # BioTorch prints what it has converted.
        with contextlib.redirect_stdout(io.StringIO()):
            model = bio_module(network, mode=mode, output_dim=classes)

        def forward(batch: Batch) -> Tensor:
            # Direct feedback alignment computes the error at the output in the forward pass.
            arguments = (batch.target, F.cross_entropy) if mode == "dfa" else ()
            output: Tensor = model(batch.input, *arguments)
            return output

        return Training(model, _adam(model), forward)

    return method
