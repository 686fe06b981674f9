"""Hand-written training loops with learned feedback, for fully connected networks.

A network is cut after every ReLU. The synthetic gradient at a cut is a matrix times the error at
the output (see :mod:`benchmarks.feedback_matrices`). :class:`FeedbackByHand` learns the matrices in
every step, from bootstrapped gradients. :class:`ExactEveryByHand` learns them in one step of
``every``, from those of backpropagation; in the others no gradient crosses a cut. The tests compare
both with the equations. The loops call the necessary kernels and little else, so their step times
are lower bounds for steps with these kernels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from .feedback_matrices import MATRICES, Matrices

BATCH, INPUTS, CLASSES = 256, 784, 10

#: How a backward pass runs: as one pass with a node at the output, which makes the synthetic
#: gradients of all cuts at once; as one pass with a node at each cut, which makes its own; as one
#: pass for each part.
WAYS = ("output node", "cut nodes", "passes")

Gradients = Callable[[Tensor], Sequence[Tensor | None]]


def _send_gradients(gradients: Gradients, logits: Tensor, others: list[Tensor]) -> Tensor:
    """Return the logits; ``gradients`` maps the error to what the others get from it."""
    sent: Tensor = _Output.apply(gradients, logits, *others)  # type: ignore[no-untyped-call]
    return sent


class _Output(torch.autograd.Function):
    """Returns the logits; in the backward pass, it sends gradients to other tensors as well."""

    @staticmethod
    def forward(ctx: Any, gradients: Gradients, logits: Tensor, *others: Tensor) -> Tensor:
        ctx.gradients = gradients
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Any:
        return None, error, *ctx.gradients(error)


class _CutNode(torch.autograd.Function):
    """Returns an empty tensor; in the backward pass, the activation gets a synthetic gradient."""

    @staticmethod
    def forward(ctx: Any, predict: Callable[[], Tensor], activation: Tensor) -> Tensor:
        ctx.predict = predict
        ctx.set_materialize_grads(False)
        return activation.new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: None) -> Any:
        return None, ctx.predict()


class FeedbackLoop(ABC):
    """Trains a network that is given as parts.

    Args:
        parts: The parts of the network in order; the last one computes the logits.
        optimizer: Optimizer of the network.
        matrices: One matrix for each part but the last.
        way: One of :data:`WAYS`.
    """

    def __init__(
        self, parts: Sequence[nn.Module], optimizer: Optimizer, matrices: Matrices, way: str
    ) -> None:
        *self._parts, self._head = parts
        self._optimizer, self.matrices, self._way = optimizer, matrices, way

    def step(self, x: Tensor, y: Tensor) -> None:
        """Take one training step on inputs and labels."""
        self._optimizer.zero_grad()
        self._backward(x, y)
        self._optimizer.step()

    @abstractmethod
    def _backward(self, x: Tensor, y: Tensor) -> None:
        """Compute the gradients of the network, and let the matrices learn."""

    def _run_parts(self, x: Tensor, true_gradients: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Run the parts before the head, each on a detached activation.

        Args:
            x: Inputs.
            true_gradients: Whether the backward passes compute the gradients of activations.

        Returns:
            The activations with their graphs, and detached.
        """
        outputs, inputs = [], []
        for part in self._parts:
            output = part(x)
            x = output.detach().requires_grad_(true_gradients)
            outputs.append(output)
            inputs.append(x)
        return outputs, inputs

    def _run_head(self, x: Tensor, y: Tensor) -> Tensor:
        """Run the head with its backward pass, and return the error."""
        logits: Tensor = self._head(x)
        logits.retain_grad()
        F.cross_entropy(logits, y).backward()
        error = logits.grad
        assert error is not None
        return error

    def _predict_all(self, error: Tensor) -> list[Tensor]:
        self.matrices.receive_error(error)
        return [self.matrices.predict(cut) for cut in range(len(self._parts))]


class FeedbackByHand(FeedbackLoop):
    """The matrices learn in every step."""

    def _backward(self, x: Tensor, y: Tensor) -> None:
        if self._way == "output node":
            self._with_output_node(x, y)
        elif self._way == "cut nodes":
            self._with_hooks(x, y)
        else:
            self._with_passes(x, y)
        self.matrices.step()

    def _with_output_node(self, x: Tensor, y: Tensor) -> None:
        outputs, inputs = self._run_parts(x, true_gradients=True)
        logits = _send_gradients(self._predict_all, self._head(inputs[-1]), outputs)
        F.cross_entropy(logits, y).backward()
        for cut, input in enumerate(inputs):
            assert input.grad is not None
            self.matrices.learn(cut, input.grad)

    def _with_hooks(self, x: Tensor, y: Tensor) -> None:
        """Replace the gradient at each cut by a hook, which takes less time than a node."""
        for cut, part in enumerate(self._parts):
            x = part(x)
            x.register_hook(partial(self._cross, cut))
        logits = self._head(x)
        logits.register_hook(self.matrices.receive_error)
        F.cross_entropy(logits, y).backward()

    def _with_passes(self, x: Tensor, y: Tensor) -> None:
        outputs, inputs = self._run_parts(x, true_gradients=True)
        self.matrices.receive_error(self._run_head(inputs[-1], y))
        for cut in reversed(range(len(outputs))):
            true = inputs.pop().grad  # not kept: memory that was used just before is the fastest
            assert true is not None
            outputs.pop().backward(self._cross(cut, true))

    def _cross(self, cut: int, true: Tensor) -> Tensor:
        """Return the synthetic gradient of a cut, and learn from the true one."""
        synthetic = self.matrices.predict(cut)
        self.matrices.learn(cut, true)
        return synthetic


class ExactEveryByHand(FeedbackLoop):
    """The matrices learn in one step of ``every``, in which backpropagation trains the network.

    Args:
        parts: The parts of the network in order; the last one computes the logits.
        optimizer: Optimizer of the network.
        matrices: One matrix for each part but the last.
        way: One of :data:`WAYS`.
        every: Steps from one that learns to the next; the first step learns.
    """

    def __init__(
        self,
        parts: Sequence[nn.Module],
        optimizer: Optimizer,
        matrices: Matrices,
        way: str,
        every: int,
    ) -> None:
        super().__init__(parts, optimizer, matrices, way)
        self._every, self._steps = every, 0

    def _backward(self, x: Tensor, y: Tensor) -> None:
        if self._steps % self._every == 0:
            self._backpropagate(x, y)
        elif self._way == "output node":
            self._with_output_node(x, y)
        elif self._way == "cut nodes":
            self._with_cut_nodes(x, y)
        else:
            outputs, inputs = self._run_parts(x, true_gradients=False)
            self.matrices.receive_error(self._run_head(inputs[-1], y))
            self._run_backward_passes(outputs)
        self._steps += 1

    def _backpropagate(self, x: Tensor, y: Tensor) -> None:
        for cut, part in enumerate(self._parts):
            x = part(x)
            x.register_hook(partial(self.matrices.learn, cut))
        logits = self._head(x)
        logits.register_hook(self.matrices.receive_error)
        F.cross_entropy(logits, y).backward()
        self.matrices.step()

    def _with_output_node(self, x: Tensor, y: Tensor) -> None:
        outputs, inputs = self._run_parts(x, true_gradients=False)
        logits = _send_gradients(self._predict_all, self._head(inputs[-1]), outputs)
        F.cross_entropy(logits, y).backward()

    def _with_cut_nodes(self, x: Tensor, y: Tensor) -> None:
        nodes = []
        for cut, part in enumerate(self._parts):
            x = part(x)
            # The newest node of those that are ready runs first: this one just before its part.
            predict = partial(self.matrices.predict, cut)
            nodes.append(_CutNode.apply(predict, x))  # type: ignore[no-untyped-call]
            x = x.detach()
        logits = _send_gradients(self._predict_later, self._head(x), nodes)
        F.cross_entropy(logits, y).backward()

    def _predict_later(self, error: Tensor) -> list[None]:
        self.matrices.receive_error(error)
        return [None] * len(self._parts)

    def _run_backward_passes(self, outputs: list[Tensor]) -> None:
        """Run the backward pass of each part from its synthetic gradient."""
        for cut in reversed(range(len(outputs))):
            outputs.pop().backward(self.matrices.predict(cut))


def mlp(depth: int, width: int, batch_norm: bool, inputs: int = INPUTS) -> nn.Sequential:
    """Build ``depth`` parts, each [Linear, BatchNorm or nothing, ReLU], and a linear layer."""
    parts: list[nn.Module] = []
    for size in [inputs, *[width] * (depth - 1)]:
        norm = [nn.BatchNorm1d(width)] if batch_norm else []
        parts.append(nn.Sequential(nn.Linear(size, width), *norm, nn.ReLU()))
    return nn.Sequential(*parts, nn.Linear(width, CLASSES))


def by_hand(
    network: nn.Sequential,
    optimizer: Optimizer,
    every: int = 1,
    way: str = WAYS[0],
    matrices: str = "each",
) -> FeedbackLoop:
    """Return the loop for a network of :func:`mlp`.

    Args:
        network: The network.
        optimizer: Its optimizer.
        every: Steps from one that learns to the next.
        way: One of :data:`WAYS`.
        matrices: One of :data:`~benchmarks.feedback_matrices.MATRICES`.
    """
    like = next(network.parameters())
    shapes = [(part[0].out_features,) for part in [*network][:-1]]
    feedback = MATRICES[matrices](shapes, CLASSES, like)
    if every == 1:
        return FeedbackByHand([*network], optimizer, feedback, way)
    return ExactEveryByHand([*network], optimizer, feedback, way, every)
