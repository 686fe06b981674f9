"""A hand-written training loop with eager synthetic gradients, for one type of network.

It does the same arithmetic as ``DNI(network, layers="blocks.*", eager=True)`` with its default
synthesizers; the tests compare the parameters of both. It calls the necessary kernels and little
else, so its step time is a lower bound for a step with these kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from pytorch_dni import DNI

from .deep_networks import CLASSES, DeepNetwork, NetworkType
from .hand_written import copy_synthesizer, DECAY, Synthesizer, synthesizer_adam
from .training_methods import Step

_relu_backward = torch.ops.aten.threshold_backward.default
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default


class _Prediction(NamedTuple):
    """A synthetic gradient, and what the backward pass of its synthesizer needs.

    Attributes:
        trigger: Input of the synthesizer, ``(batch, inputs)``.
        first_output: Output of its first layer, ``(batch, hidden)``.
        mean: Mean of that over the batch.
        inverse_std: Inverse standard deviation of that over the batch.
        hidden: Output of the ReLU, ``(batch, hidden)``.
        gradient: The synthetic gradient, ``(batch, outputs)``.
        scale: Factor from the output of the last layer to the synthetic gradient.
    """

    trigger: Tensor
    first_output: Tensor
    mean: Tensor
    inverse_std: Tensor
    hidden: Tensor
    gradient: Tensor
    scale: float


class _EagerSynthesizer:
    """A synthesizer whose forward and backward passes run without autograd.

    Args:
        layers: Its layers, whose parameters it uses.
    """

    def __init__(self, layers: Synthesizer) -> None:
        self._first, self._last, self._bias = (
            layers.first.weight,
            layers.last.weight,
            layers.last.bias,
        )
        self._gain, self._shift, self._eps = layers.norm.weight, layers.norm.bias, layers.norm.eps
        self._mean_square, self._steps = 0.0, 0

    @property
    def _scale(self) -> float:
        """The running root mean square of the true gradient."""
        return float((self._mean_square + 1e-37) ** 0.5)

    def predict(self, trigger: Tensor) -> _Prediction:
        """Predict the gradient of an activation."""
        first_output = F.linear(trigger, self._first)
        normalised, mean, inverse_std = torch.native_batch_norm(
            first_output, self._gain, self._shift, None, None, True, 0.0, self._eps
        )
        hidden, scale = normalised.relu(), self._scale
        gradient = torch.addmm(self._bias, hidden, self._last.t(), beta=scale, alpha=scale)
        return _Prediction(trigger, first_output, mean, inverse_std, hidden, gradient, scale)

    def learn(self, prediction: _Prediction, true_gradient: Tensor) -> None:
        """Compute the gradients of the parameters from the error of a prediction.

        The loss is the mean squared error, in units of the running root mean square.
        """
        flat = true_gradient.reshape(-1)
        self._steps += 1
        weight = (1 - DECAY) / (1 - DECAY**self._steps)
        self._mean_square += weight * (torch.dot(flat, flat).item() / len(flat) - self._mean_square)
        error = torch.sub(prediction.gradient, true_gradient, alpha=prediction.scale / self._scale)
        error.mul_(2 / (len(flat) * prediction.scale))
        self._last.grad, self._bias.grad = error.t().mm(prediction.hidden), error.sum(0)
        grad = _relu_backward(error.mm(self._last), prediction.hidden, 0)
        grad, self._gain.grad, self._shift.grad = _batch_norm_backward(
            grad,
            prediction.first_output,
            self._gain,
            None,
            None,
            prediction.mean,
            prediction.inverse_std,
            True,
            self._eps,
            [True] * 3,
        )
        self._first.grad = grad.t().mm(prediction.trigger)


class EagerHandWrittenLoop:
    """Trains a network of blocks with a cut after each block.

    Args:
        network: The network.
        synthesizers: One after each block.
        optimizer: Optimizer of the network.
    """

    def __init__(
        self, network: DeepNetwork, synthesizers: Sequence[Synthesizer], optimizer: Optimizer
    ) -> None:
        self._head = network.head
        self._synthesizers = [_EagerSynthesizer(layers) for layers in synthesizers]
        self._optimizer = optimizer
        self._synthesizer_optimizer = synthesizer_adam(synthesizers)
        first, *others = network.blocks
        self._parts = [nn.Sequential(network.stem, first), *others]
        self._parameters = [[*part.parameters()] for part in self._parts]

    def step(self, x: Tensor, y: Tensor) -> None:
        """Take one training step on inputs and labels."""
        self._optimizer.zero_grad()
        previous: tuple[_EagerSynthesizer, _Prediction] | None = None
        for part, parameters, synthesizer in zip(
            self._parts, self._parameters, self._synthesizers, strict=True
        ):
            output = part(x)
            with torch.no_grad():
                prediction = synthesizer.predict(output.detach())
            self._backward(output, prediction.gradient, parameters, x, previous)
            previous, x = (synthesizer, prediction), output.detach().requires_grad_()
        loss = F.cross_entropy(self._head(x), y)
        self._backward(loss, None, [*self._head.parameters()], x, previous)
        self._optimizer.step()
        self._synthesizer_optimizer.step()

    @staticmethod
    def _backward(
        output: Tensor,
        output_gradient: Tensor | None,
        parameters: list[nn.Parameter],
        x: Tensor,
        previous: tuple[_EagerSynthesizer, _Prediction] | None,
    ) -> None:
        """Run the backward pass of one part.

        Args:
            output: Output of the part, or the loss.
            output_gradient: Its gradient; None for the loss.
            parameters: Parameters of the part.
            x: Input of the part.
            previous: Synthesizer after the previous part, and its prediction of the gradient of
                ``x``; None for the first part.
        """
        inputs = [*parameters] if previous is None else [*parameters, x]
        gradients = torch.autograd.grad([output], inputs, output_gradient)
        for parameter, gradient in zip(parameters, gradients[: len(parameters)], strict=True):
            parameter.grad = gradient
        if previous is not None:
            synthesizer, prediction = previous
            with torch.no_grad():
                synthesizer.learn(prediction, gradients[-1])


def by_hand(network: DeepNetwork, wrapped: DNI, optimizer: Optimizer) -> EagerHandWrittenLoop:
    """Return the loop for a network; its synthesizers start as copies of those of ``wrapped``."""
    synthesizers = [copy_synthesizer(i.synthesizer) for i in wrapped.interfaces.values()]
    return EagerHandWrittenLoop(network, synthesizers, optimizer)


def training_step(network_type: NetworkType, depth: int) -> Step:
    """Return a training step on random data for a network of ``depth`` blocks."""
    torch.manual_seed(0)
    network = network_type.build(depth)
    x = torch.randn(network_type.input_shape)
    y = torch.randint(CLASSES, (network_type.input_shape[0],))
    wrapped = DNI(
        copy.deepcopy(network),
        layers="blocks.*",
        eager=True,
        hidden_size=network_type.synthesizer_width,
        example_input=x,
    )
    loop = by_hand(network, wrapped, torch.optim.SGD(network.parameters(), lr=1e-3))
    return lambda: loop.step(x, y)
