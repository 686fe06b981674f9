"""The base class of the tasks: a network, training and test data, a loss and an error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn, Tensor

# No run has as many steps, so runs with different seeds never use the same random numbers.
_STEPS_PER_SEED = 1_000_003


class Batch(NamedTuple):
    """Samples on the device of the network.

    Attributes:
        input: Input of the network.
        target: Target of the loss.
        context: Context of the synthesizers, in the modes that use one.
    """

    input: Tensor
    target: Tensor
    context: Tensor


class Task(ABC):
    """A task on which modes of training are compared; subclasses set the attributes.

    Attributes:
        layers: Argument ``layers`` of ``DNI``, which places the cuts.
        local_loss_params: Argument ``dni_params`` of ``DNI`` for local losses.
        context_size: Number of features of the context.
        default_steps: Number of training steps if ``--steps`` is not given.
        chance_error: Test error of the best constant answer.
        error_meaning: What the test error is.
        summary_note: What else the summary says about the data or the error.
    """

    layers: Any = None
    local_loss_params: ClassVar[dict[str, Any]] = {}
    context_size: int
    default_steps: int
    chance_error: float
    error_meaning: str = "share of wrong answers"
    summary_note: str = ""

    @abstractmethod
    def build_network(self) -> nn.Module:
        """Build a network with new random weights on the CPU."""

    @abstractmethod
    def training_batch(self, seed: int, step: int) -> Batch:
        """Return the training batch of a step.

        It depends on the arguments alone, so a resumed run trains on the same batches.
        """

    @abstractmethod
    def test_batches(self) -> Iterable[Batch]:
        """Return the test data, which is the same for all runs."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the training loss, a scalar: the mean over the batch."""

    @abstractmethod
    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """Compute the fraction of wrong answers, or another error, a scalar."""


def step_seed(seed: int, step: int) -> int:
    """Return the random seed of one step of a run.

    Negative steps give seeds for random numbers that belong to no training step.
    """
    return (seed * _STEPS_PER_SEED + step) % 2**32


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return a random number generator for one step of a run."""
    return torch.Generator().manual_seed(step_seed(seed, step))
