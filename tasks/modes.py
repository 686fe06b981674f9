"""What the modes mean: how a network is wrapped, and which learning rates it trains with."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TYPE_CHECKING

import torch
from torch import nn, Tensor

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

#: Plain backpropagation, synthetic gradients, the same with labels as context, local losses.
MODES = ("bp", "dni", "cdni", "local")

SYNTHESIZERS = {
    "linear": Linear_DNI,
    "linear-sigmoid": Linear_Sigmoid_DNI,
    "rnn": RNN_DNI,
    "local": LocalLoss_DNI,
}


@dataclass(frozen=True)
class Recipe:
    """One row of a comparison.

    Attributes:
        mode: One of :data:`MODES`, or of a task's own.
        lr: The network's learning rate.
        synthesizer: A name to tell rows of one mode apart.
        options: Arguments of ``DNI`` besides network and optimizer.
    """

    mode: str
    lr: float
    synthesizer: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What the row is called."""
        return f"{self.mode} {self.synthesizer}" if self.synthesizer else self.mode

    def wrap(self, network: nn.Module, optim: torch.optim.Optimizer, task: Task) -> nn.Module:
        """The network as this mode trains it."""
        if self.mode == "bp":
            return network
        options = {"layers": task.layers, **self.options}
        if self.mode != "dni":
            options["context_size"] = task.context_size
        if self.mode == "local":
            options["dni_network"] = LocalLoss_DNI
            options["dni_params"] = {**task.local_params, **options.get("dni_params", {})}
        return DNI(network, optim, **options)

    def context(self, batch: Batch) -> AbstractContextManager[None]:
        """What the forward pass runs in."""
        if self.mode in ("bp", "dni"):
            return nullcontext()
        return synthesizer_context(batch.context)


class Run:
    """A network in training: one mode, one seed."""

    def __init__(self, recipe: Recipe, seed: int, network: nn.Module, task: Task) -> None:
        self.recipe = recipe
        self.seed = seed
        self.task = task
        self.optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
        self.net = recipe.wrap(network, self.optimizer, task)
        self.block_times: list[float | None] = []  # median step in seconds; None: warming up
        self.losses: list[Tensor] = []
        self.last: tuple[Tensor, Batch] | None = None

    def step(self, batch: Batch) -> float:
        """Train on a batch that lies on the device; returns the seconds it took."""
        _wait(batch.input)
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with self.recipe.context(batch):
            output = self.net(batch.input)
        loss = self.task.loss(output, batch.target)
        loss.backward()
        self.optimizer.step()
        _wait(batch.input)
        seconds = time.perf_counter() - start
        self.losses.append(loss.detach())
        self.last = output.detach(), batch
        return seconds

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and error on the test data."""
        self.net.eval()
        sums, count = torch.zeros(2, dtype=torch.float64), 0
        with torch.no_grad():
            for batch in self.task.test():
                output = self.net(batch.input)
                figures = self.task.loss(output, batch.target), self.task.error(output, batch)
                sums += torch.stack(figures).double().cpu() * len(batch.input)
                count += len(batch.input)
        self.net.train()
        loss, error = (sums / count).tolist()
        return loss, error

    def training_loss(self) -> float:
        """Mean loss since the last call."""
        mean = torch.stack(self.losses).mean().item()
        self.losses = []
        return mean

    def batch_error(self) -> float:
        """Error on the last batch, before the step that it was used for."""
        assert self.last is not None
        return self.task.error(*self.last).item()

    def cosine(self) -> float | None:
        """Mean cosine similarity of synthetic to true gradient; None without interfaces."""
        if self.recipe.mode == "bp":
            return None
        cosines = [stats.cosine for stats in self.net.stats().values()]
        known = [cosine for cosine in cosines if cosine == cosine]
        return sum(known) / len(known) if known else None

    def state_dict(self) -> dict[str, Any]:
        """All that training goes on from; the wrapper's part includes its synthesizers."""
        return {
            "seed": self.seed,
            "label": self.recipe.label,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "block_times": self.block_times,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.block_times = list(state["block_times"])


def _wait(like: Tensor) -> None:
    # Accelerators work behind the program's back; their time counts too.
    if like.device.type != "cpu":
        torch.accelerator.synchronize(like.device)
