"""Eager learning written out by hand: the kernels it takes and nothing around them.

The arithmetic of ``DNI(network, layers="blocks.*", eager=True)`` with its default synthesizers, for
one kind of network; the tests compare the parameters of both. No step with these kernels can take
less time.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import DNI
from pytorch_dni.synthesizers._mlp import MLP

from .deep import Deep, Kind, Step

DECAY, EPS = 0.99, 1e-5
_relu_backward = torch.ops.aten.threshold_backward.default
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default


class _Prediction(NamedTuple):
    """What a synthesizer learns from: its own activations, and what it gave."""

    trigger: Tensor
    summed: Tensor
    mean: Tensor
    inverse: Tensor
    hidden: Tensor
    gradient: Tensor
    unit: float


class Synthesizer:
    """Linear, batch norm, ReLU, linear, and the running size of the true gradient.

    Args:
        layers: Gives the parameters.
    """

    def __init__(self, layers: MLP) -> None:
        self.first, self.last, self.bias = layers.first.weight, layers.last.weight, layers.last.bias
        self.gain, self.shift = layers.gains[0], layers.shifts[0]
        self._mean_square, self._count = 0.0, 0

    @property
    def _unit(self) -> float:
        return float((self._mean_square + 1e-37) ** 0.5)

    def predict(self, trigger: Tensor) -> _Prediction:
        """The synthetic gradient."""
        summed = F.linear(trigger, self.first)
        normed, mean, inverse = torch.native_batch_norm(
            summed, self.gain, self.shift, None, None, True, 0.0, EPS
        )
        hidden, unit = normed.relu(), self._unit
        gradient = torch.addmm(self.bias, hidden, self.last.t(), beta=unit, alpha=unit)
        return _Prediction(trigger, summed, mean, inverse, hidden, gradient, unit)

    def learn(self, made: _Prediction, true: Tensor) -> None:
        """From the true gradient."""
        flat = true.reshape(-1)
        self._count += 1
        weight = (1 - DECAY) / (1 - DECAY**self._count)
        self._mean_square += weight * (torch.dot(flat, flat).item() / len(flat) - self._mean_square)
        error = torch.sub(made.gradient, true, alpha=made.unit / self._unit)
        error.mul_(2 / (len(flat) * made.unit))
        self.last.grad, self.bias.grad = error.t().mm(made.hidden), error.sum(0)
        delta = _relu_backward(error.mm(self.last), made.hidden, 0)
        delta, self.gain.grad, self.shift.grad = _batch_norm_backward(
            delta,
            made.summed,
            self.gain,
            None,
            None,
            made.mean,
            made.inverse,
            True,
            EPS,
            [True] * 3,
        )
        self.first.grad = delta.t().mm(made.trigger)


class EagerByHand:
    """Trains a network of blocks, with a cut behind each.

    Args:
        network: The network.
        synthesizers: Behind each block.
        opt: The network's optimizer.
        synthesizer_opt: The synthesizers'.
    """

    def __init__(
        self,
        network: Deep,
        synthesizers: list[Synthesizer],
        opt: torch.optim.Optimizer,
        synthesizer_opt: torch.optim.Optimizer,
    ) -> None:
        self._head, self._synthesizers = network.head, synthesizers
        self._opt, self._synthesizer_opt = opt, synthesizer_opt
        first, *others = network.blocks
        self._parts = [nn.Sequential(network.stem, first), *others]
        self._parameters = [[*part.parameters()] for part in self._parts]

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step of training."""
        self._opt.zero_grad()
        before: tuple[Synthesizer, _Prediction] | None = None
        for part, parameters, synthesizer in zip(
            self._parts, self._parameters, self._synthesizers, strict=True
        ):
            output = part(x)
            with torch.no_grad():
                made = synthesizer.predict(output.detach())
            self._part([output], [made.gradient], parameters, x, before)
            before, x = (synthesizer, made), output.detach().requires_grad_()
        loss = F.cross_entropy(self._head(x), y)
        self._part([loss], None, [*self._head.parameters()], x, before)
        self._opt.step()
        self._synthesizer_opt.step()

    @staticmethod
    def _part(
        outputs: list[Tensor],
        gradients: list[Tensor] | None,
        parameters: list[nn.Parameter],
        x: Tensor,
        before: tuple[Synthesizer, _Prediction] | None,
    ) -> None:
        inputs = [*parameters] if before is None else [*parameters, x]
        grads = torch.autograd.grad(outputs, inputs, gradients)
        for parameter, grad in zip(parameters, grads[: len(parameters)], strict=True):
            parameter.grad = grad
        if before is not None:
            with torch.no_grad():
                before[0].learn(before[1], grads[-1])


def by_hand(network: Deep, wrapped: DNI, opt: torch.optim.Optimizer) -> EagerByHand:
    """The hand-written loop for a network, beginning with the wrapper's synthesizers."""
    layers = [copy.deepcopy(i.synthesizer.layers) for i in wrapped.interfaces.values()]
    parameters = [parameter for perceptron in layers for parameter in perceptron.parameters()]
    adam = torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.99), fused=True)
    return EagerByHand(network, [Synthesizer(perceptron) for perceptron in layers], opt, adam)


def step(kind: Kind, depth: int) -> Step:
    """A step of training on random data."""
    torch.manual_seed(0)
    network = kind.build(depth)
    x, y = torch.randn(kind.input), torch.randint(10, (kind.input[0],))
    options = {"layers": "blocks.*", "hidden_size": kind.hidden, "example_input": x}
    wrapped = DNI(copy.deepcopy(network), eager=True, **options)
    hand = by_hand(network, wrapped, torch.optim.SGD(network.parameters(), lr=1e-3))
    return lambda: hand.step(x, y)
