"""A hand-written training loop with synthetic gradients, for one network.

It does the same arithmetic as ``DNI(network, optim=optimizer, dni_network=Linear_DNI,
context_size=classes)``, step by step; the tests compare the parameters of both.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

DECAY = 0.99  # of the running mean square of the true gradient


class Synthesizer(nn.Module):
    """Linear layer, batch norm, ReLU and linear layer, which predict a normalised gradient.

    Shape:
        Maps ``(batch, inputs)`` to ``(batch, outputs)``.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden, bias=False)
        self.last = nn.Linear(hidden, outputs)
        self.norm = nn.BatchNorm1d(hidden, track_running_stats=False)

    def forward(self, input: Tensor) -> Tensor:
        """Predict the gradient, in units of its running root mean square."""
        prediction: Tensor = self.last(self.norm(self.first(input)).relu())
        return prediction


def copy_synthesizer(synthesizer: nn.Module) -> Synthesizer:
    """Return a copy of a :class:`Linear_DNI` of the library, to start from the same values.

    Args:
        synthesizer: Its parameters have the order of those of :class:`Synthesizer`: weight of the
            first layer, weight and bias of the last layer, weight and bias of the batch norm.
    """
    values = [*synthesizer.parameters()]
    (hidden, inputs), outputs = values[0].shape, len(values[1])
    copied = Synthesizer(inputs, hidden, outputs).to(values[0].device, values[0].dtype)
    with torch.no_grad():
        for parameter, value in zip(copied.parameters(), values, strict=True):
            parameter.copy_(value)
    return copied


def synthesizer_adam(synthesizers: Iterable[nn.Module]) -> Optimizer:
    """Return the optimizer that the library uses for synthesizers by default."""
    parameters = [parameter for one in synthesizers for parameter in one.parameters()]
    return torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.99), fused=True)


class HandWrittenLoop:
    """Trains a network that is given as parts, with a synthesizer between two parts.

    Args:
        parts: The parts of the network in order; the last one computes the logits.
        synthesizers: One after each part but the last; they map the activation and the one-hot
            label, joined, to a prediction of the activation's gradient.
        optimizer: Optimizer of the network.
        synthesizer_optimizer: Optimizer of the synthesizers.
        classes: Number of classes.
    """

    def __init__(
        self,
        parts: list[nn.Module],
        synthesizers: list[nn.Module],
        optimizer: Optimizer,
        synthesizer_optimizer: Optimizer,
        classes: int,
    ) -> None:
        self.synthesizers = synthesizers
        self._parts = parts
        self._optimizer, self._synthesizer_optimizer = optimizer, synthesizer_optimizer
        self._classes = classes
        zero = next(parts[0].parameters()).new_zeros(())
        self._mean_squares = [zero.clone() for _ in synthesizers]
        self._scales = [zero for _ in synthesizers]  # root mean squares of the true gradients
        self._steps = 0

    def step(self, x: Tensor, y: Tensor) -> None:
        """Take one training step on inputs and labels."""
        self._optimizer.zero_grad()
        self._synthesizer_optimizer.zero_grad()
        labels = F.one_hot(y, self._classes).to(x.dtype)
        outputs, inputs = [], []
        for part in self._parts[:-1]:
            x = part(x)
            outputs.append(x)
            x = x.detach().requires_grad_()
            inputs.append(x)
        F.cross_entropy(self._parts[-1](x), y).backward()
        self._steps += 1
        for i in reversed(range(len(inputs))):
            self._backward_at_cut(i, outputs[i], inputs[i], labels)
        self._synthesizer_optimizer.step()
        self._optimizer.step()

    def _backward_at_cut(self, i: int, output: Tensor, input: Tensor, labels: Tensor) -> None:
        """Train a synthesizer on the true gradient; pass the synthetic gradient on to its part.

        Args:
            i: Number of the cut.
            output: Output of the part before the cut, with its graph.
            input: The same values as input of the next part, with the true gradient.
            labels: One-hot labels.
        """
        true_gradient = input.grad
        assert true_gradient is not None
        prediction = self.synthesizers[i](torch.cat([input.detach(), labels], 1))
        synthetic_gradient = prediction.detach() * self._scales[i]
        with torch.no_grad():
            weight = (1 - DECAY) / (1 - DECAY**self._steps)
            self._mean_squares[i].lerp_(true_gradient.square().mean(), weight)
            self._scales[i] = self._mean_squares[i].sqrt().clamp_min(1e-30)
        F.mse_loss(prediction, true_gradient / self._scales[i]).backward()
        output.backward(synthetic_gradient)
