"""Modes of training: how each one wraps the network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TYPE_CHECKING

from torch import nn, Tensor
from torch.optim import Optimizer

from pytorch_dni import (
    Conv2d_DNI,
    DNI,
    DNI_Network,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
)

if TYPE_CHECKING:
    from .task import Batch, Task

MODES = {
    "bp": "backpropagation",
    "feedback": "synthetic gradients, predicted by a matrix from the error at the output",
    "exact": "the same, and exact gradients in one step of four",
    "local-error": "synthetic gradients, predicted by a matrix from the error of a local head",
    "dni": "synthetic gradients, predicted from the activation",
    "cdni": "synthetic gradients, predicted from the activation and the label or target",
    "local": "gradients of local losses",
}
#: What tasks compare by default.
DEFAULT_MODES = ("bp", "feedback", "local-error", "dni", "cdni", "local")
#: The modes whose synthesizers get no context; others that a task defines do.
WITHOUT_CONTEXT = ("bp", "feedback", "exact", "dni")
_EXACT_EVERY = 4
_LOCAL_HEADS = {"local-error": LocalError_DNI, "local": LocalLoss_DNI}

SYNTHESIZERS = {
    "linear": Linear_DNI,
    "linear-sigmoid": Linear_Sigmoid_DNI,
    "rnn": RNN_DNI,
    "local": LocalLoss_DNI,
}


def context_synthesizer(
    context_size: int, hidden_size: int | None, name: str, module: nn.Module, output: Tensor
) -> DNI_Network:
    """Return a synthesizer on the activation and the context: an MLP, or convolutions for maps.

    Args:
        context_size: Number of features of the context.
        hidden_size: Width of the synthesizer; None lets its class choose.
        name: Name of the module at the cut.
        module: The module.
        output: Its output, ``(batch, *positions, features)``, or maps with channels in dimension 1.
    """
    if output.dim() == 4:
        shape = output.movedim(1, -1).shape
        return Conv2d_DNI.for_activation(shape, context_size, hidden_size)
    return Linear_DNI.for_activation(output.shape, context_size, hidden_size)


@dataclass(frozen=True)
class Configuration:
    """How the network is trained in one row of a comparison.

    Attributes:
        mode: One of :data:`MODES`, or a mode that the task defines.
        lr: Learning rate of the network.
        variant: Distinguishes rows of the same mode; None where the mode has one row.
        dni_arguments: Arguments of ``DNI`` besides the network and its optimizer.
    """

    mode: str
    lr: float
    variant: str | None = None
    dni_arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name of the row in tables and curves."""
        return f"{self.mode} {self.variant}" if self.variant else self.mode

    def wrap(self, network: nn.Module, optimizer: Optimizer, task: Task) -> nn.Module:
        """Return the module that is trained: the network, wrapped as the mode needs it."""
        if self.mode == "bp":
            return network
        arguments = {"layers": task.layers, **self.dni_arguments}
        if self.mode == "exact":
            arguments["exact_every"] = _EXACT_EVERY
        elif self.mode == "dni":
            arguments.setdefault("unlock", "update")
        elif self.mode not in WITHOUT_CONTEXT:
            self._add_context(arguments, task)
        return DNI(network, optimizer, **arguments)

    def _add_context(self, arguments: dict[str, Any], task: Task) -> None:
        """Add the context and the synthesizers that get it to the arguments of ``DNI``."""
        size = task.context_size
        arguments["context_size"] = size
        if self.mode in _LOCAL_HEADS:
            arguments["dni_network"] = _LOCAL_HEADS[self.mode]
            given = arguments.get("dni_params", {})
            arguments["dni_params"] = {**task.local_loss_params, **given}
        elif arguments.get("dni_network") is None:
            hidden_size = arguments.get("hidden_size")
            arguments["dni_network"] = partial(context_synthesizer, size, hidden_size)

    def context(self, batch: Batch) -> AbstractContextManager[None]:
        """Return the context manager for the forward pass; synthesizers get the context in it."""
        if self.mode in WITHOUT_CONTEXT:
            return nullcontext()
        return synthesizer_context(batch.context)
