"""The part of a rank: its forward and backward passes on the tensors of messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.distributed import ProcessGroup
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..errors import DNIError


class Batch(NamedTuple):
    """The tensors that a part gets for one batch.

    Attributes:
        number: Number of the batch.
        inputs: Inputs of the part.
        extras: What travels on to the last part: target, context, inputs of the network.
    """

    number: int
    inputs: Sequence[Tensor]
    extras: Sequence[Tensor]


class PartPass(NamedTuple):
    """One forward pass of a part.

    Attributes:
        inputs: Its inputs; those that get a gradient are leaves of the graph.
        outputs: What it returned, as a list.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]

    def backward(self, grads: Sequence[Tensor | None]) -> None:
        """Backpropagate gradients of the outputs; None stands for no gradient."""
        pairs = zip(self.outputs, grads, strict=True)
        found = [(o, g) for o, g in pairs if g is not None and o.requires_grad]
        if found:
            torch.autograd.backward([o for o, _ in found], [g for _, g in found])

    def input_gradients(self) -> list[Tensor | None]:
        """Return the gradients of the floating-point inputs; None where an input is not used."""
        return [tensor.grad for tensor in self.inputs if tensor.is_floating_point()]


class PartRunner:
    """Runs the module of a part, and updates it.

    Args:
        module: The module.
        number: Number of the part, for error messages.
        optimizer: Its optimizer; None where it has no parameters.
        scheduler: Steps after each step of the optimizer; None for none.
        device: Where its inputs are put.
    """

    def __init__(
        self,
        module: nn.Module,
        number: int,
        optimizer: Optimizer | None,
        scheduler: LRScheduler | None,
        device: torch.device,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.device = device
        self._number = number
        self.needs_input_gradients = False

    def replicate(self, group: ProcessGroup) -> None:
        """Average gradients over the ranks of a group from now on."""
        self.module = DistributedDataParallel(self.module, process_group=group)

    def evaluate(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run the module in ``eval()``, without gradients; other replicas need not do the same."""
        inputs = [tensor.to(self.device) for tensor in tensors]
        return self._tensors(bare(self.module)(*inputs))

    def ask_input_gradients(self) -> None:
        """Compute gradients with respect to the inputs from now on."""
        self.needs_input_gradients = True

    def forward(self, tensors: Sequence[Tensor]) -> PartPass:
        """Run the module on inputs."""
        inputs = [tensor.detach().to(self.device) for tensor in tensors]
        if self.needs_input_gradients and torch.is_grad_enabled():
            inputs = [t.requires_grad_() if t.is_floating_point() else t for t in inputs]
        return PartPass(inputs, self._tensors(self.module(*inputs)))

    def zero_grad(self) -> None:
        """Clear the gradients of the parameters."""
        if self.optimizer is not None:
            self.optimizer.zero_grad()

    def step(self) -> None:
        """Update the parameters by their gradients."""
        if self.optimizer is not None:
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def learn_loss(self, loss: Tensor) -> None:
        """Backpropagate a loss, and update the parameters."""
        self.zero_grad()
        torch.autograd.backward(loss)
        self.step()

    def learn(self, done: PartPass, grads: Sequence[Tensor | None]) -> None:
        """Backpropagate gradients of the outputs, and update the parameters."""
        self.zero_grad()
        done.backward(grads)
        self.step()

    def loss(self, done: PartPass, target: Tensor, loss: Callable[..., Tensor]) -> Tensor:
        """In the last part, compute the loss."""
        return loss(*done.outputs, target.to(self.device))

    def _tensors(self, output: object) -> list[Tensor]:
        found = [*output] if isinstance(output, (tuple, list)) else [output]
        tensors = [tensor for tensor in found if isinstance(tensor, Tensor)]
        if not tensors or len(tensors) < len(found):
            kinds = ", ".join(type(tensor).__name__ for tensor in found)
            owner = f"part {self._number} ({type(self.module).__name__})"
            raise DNIError(
                f"{owner} returned {kinds or 'nothing'}: what a part passes on must be a tensor, "
                "or a tuple or list of tensors"
            )
        return tensors


def bare(module: nn.Module) -> nn.Module:
    """Return a module without ``DistributedDataParallel`` around it."""
    return module.module if isinstance(module, DistributedDataParallel) else module
