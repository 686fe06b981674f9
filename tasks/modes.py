"""Modes of training: how each one wraps the network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from pytorch_dni import (
    DNI,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
)

if TYPE_CHECKING:
    from .task import Batch, Task

MODES = {
    "bp": "backpropagation",
    "dni": "synthetic gradients, predicted from the activation",
    "cdni": "synthetic gradients, predicted from the activation and the label or target",
    "local": "gradients of local losses",
}
#: What tasks compare by default if all modes have the same settings in them.
DEFAULT_MODES = ("bp", "dni", "local")

SYNTHESIZERS = {
    "linear": Linear_DNI,
    "linear-sigmoid": Linear_Sigmoid_DNI,
    "rnn": RNN_DNI,
    "local": LocalLoss_DNI,
}


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
        if self.mode != "dni":
            arguments["context_size"] = task.context_size
        if self.mode == "local":
            arguments["dni_network"] = LocalLoss_DNI
            arguments["dni_params"] = {
                **task.local_loss_params,
                **arguments.get("dni_params", {}),
            }
        return DNI(network, optimizer, **arguments)

    def context(self, batch: Batch) -> AbstractContextManager[None]:
        """Return the context manager for the forward pass; synthesizers get the context in it."""
        if self.mode in ("bp", "dni"):
            return nullcontext()
        return synthesizer_context(batch.context)
