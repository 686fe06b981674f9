"""What a task is: a network, data, a loss and an error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn, Tensor

# Larger than any number of steps, so that seeds do not share batches.
_STRIDE = 1_000_003


class Batch(NamedTuple):
    """Samples on the device.

    Attributes:
        input: Of the network.
        target: Of the loss.
        context: For the synthesizers, where a mode gives them one.
    """

    input: Tensor
    target: Tensor
    context: Tensor


class Task(ABC):
    """Attributes that are not class variables are set by the tasks.

    Attributes:
        layers: Where ``DNI`` cuts; None lets it choose.
        local_params: ``dni_params`` of local losses.
        context_size: Width of the context.
        total: Steps of a run where none are asked for.
        chance: Error of guessing.
    """

    layers: ClassVar[Any] = None
    local_params: ClassVar[dict[str, Any]] = {}
    context_size: int
    total: int
    chance: float

    @abstractmethod
    def network(self) -> nn.Module:
        """A network with fresh weights, on the CPU."""

    @abstractmethod
    def batch(self, seed: int, step: int) -> Batch:
        """What to train on in a step: a function of seed and step, so that runs can be resumed."""

    @abstractmethod
    def test(self) -> Iterable[Batch]:
        """Test data, the same for all runs."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """A scalar, the mean over the batch."""

    @abstractmethod
    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """The fraction of wrong answers, a scalar."""


def seed_of(seed: int, step: int) -> int:
    """A seed for one step of a run; negative steps are for data outside of it."""
    return (seed * _STRIDE + step) % 2**32


def generator(seed: int, step: int) -> torch.Generator:
    """Random numbers for one step of a run."""
    return torch.Generator().manual_seed(seed_of(seed, step))
