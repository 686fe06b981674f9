"""The multi-layer perceptron of the linear synthesizers, with a backward pass written by hand."""

from __future__ import annotations

from typing import cast, NamedTuple

import torch
from torch import nn, Tensor

from .._checks import check_choice, check_whole
from .._gradients import ParameterGrads
from .._torch import (
    batch_norm_backward,
    batch_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
    multiply_,
    relu_backward,
    sigmoid_backward,
)
from ..errors import SynthesizerError

_EPS = 1e-5


class _Layer(NamedTuple):
    """The tensors that the backward pass of a hidden layer needs."""

    input: Tensor
    summed: Tensor
    mean: Tensor | None
    inverse: Tensor | None
    output: Tensor


class Tape(NamedTuple):
    """The tensors that one :meth:`MLP.record` keeps for its backward pass."""

    layers: list[_Layer]
    last: Tensor


class MLP(nn.Module):
    """A multi-layer perceptron: linear, normalisation and activation, and a last linear layer.

    :meth:`forward` is for autograd. :meth:`record` and :meth:`backpropagate` compute the same
    without a graph: at the size of a synthesizer, where the arithmetic of a layer takes 30
    microseconds, building and walking the graph costs a quarter of the whole (306 microseconds
    against 224 for both passes at width 64, batch 256).

    Args:
        input_size: Features of the input.
        hidden_size: Width of the hidden layers.
        output_size: Features of the output.
        num_layers: Hidden layers.
        norm: ``"batch"`` (statistics of the batch only), ``"layer"`` or None, in hidden layers.
        activation: ``"relu"`` or ``"sigmoid"``.

    Shape:
        ``(*, input_size)`` to ``(*, output_size)``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        num_layers: int,
        norm: str | None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_whole("num_layers", num_layers, 0, SynthesizerError)
        check_choice("norm", norm, ("batch", "layer", None), SynthesizerError)
        self.norm = norm
        self.activation = activation
        sizes = [input_size, *[hidden_size] * num_layers, output_size]
        # Batch normalisation removes a bias in front of it.
        biased = [norm != "batch"] * num_layers + [True]
        self.linears = nn.ModuleList(
            nn.Linear(before, after, bias=bias)
            for before, after, bias in zip(sizes[:-1], sizes[1:], biased, strict=True)
        )
        scaled = num_layers if norm is not None else 0
        self.gains = nn.ParameterList(torch.ones(hidden_size) for _ in range(scaled))
        self.shifts = nn.ParameterList(torch.zeros(hidden_size) for _ in range(scaled))
        # Lists by layer: looking parameters up through modules takes longer than using them.
        self._scalings = [*zip(self.gains, self.shifts, strict=True)]
        linears = [cast(nn.Linear, linear) for linear in self.linears]
        self._weights: list[nn.Parameter] = [
            cast(nn.Parameter, linear.weight) for linear in linears
        ]
        self._biases = [cast("nn.Parameter | None", linear.bias) for linear in linears]

    @property
    def first(self) -> nn.Linear:
        """The first linear layer."""
        return cast(nn.Linear, self.linears[0])

    @property
    def last(self) -> nn.Linear:
        """The last linear layer."""
        return cast(nn.Linear, self.linears[-1])

    def forward(self, input: Tensor) -> Tensor:
        """Compute ``(*, output_size)`` from ``(*, input_size)``, recorded by autograd."""
        return self._forward(input)[0]

    def record(self, input: Tensor, unit: float = 1.0) -> tuple[Tensor, Tape]:
        """Compute the output and the tape for :meth:`backpropagate`; call under ``no_grad``.

        Args:
            input: ``(*, input_size)``.
            unit: Factor of the output, applied inside the last matrix product.
        """
        return self._forward(input, unit)

    def _forward(self, input: Tensor, unit: float = 1.0) -> tuple[Tensor, Tape]:
        rows = input.reshape(-1, input.shape[-1])
        layers = []
        for i, weight in enumerate(self._weights[:-1]):
            summed = torch.nn.functional.linear(rows, weight, self._biases[i])
            normed, mean, inverse = self._normalize(i, summed)
            output = normed.relu() if self.activation == "relu" else normed.sigmoid()
            layers.append(_Layer(rows, summed, mean, inverse, output))
            rows = output
        weight, bias = self._weights[-1], self._biases[-1]
        if unit == 1:
            output = torch.nn.functional.linear(rows, weight, bias)
        else:
            assert bias is not None
            output = torch.addmm(bias, rows, weight.t(), beta=unit, alpha=unit)
        return output.view(*input.shape[:-1], output.shape[-1]), Tape(layers, rows)

    def _normalize(self, i: int, summed: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        # A single row has no batch statistics and is left as it is.
        if self.norm is None or (self.norm == "batch" and len(summed) < 2):
            return summed, None, None
        gain, shift = self._scalings[i]
        if self.norm == "batch":
            return batch_norm_forward(summed, gain, shift, None, None, True, 0.0, _EPS)
        return layer_norm_forward(summed, gain.shape, gain, shift, _EPS)

    def backpropagate(
        self, tape: Tape, error: Tensor, factor: float = 1.0
    ) -> tuple[Tensor, ParameterGrads]:
        """Backpropagate through a recorded forward pass; writes to no parameter's ``grad``.

        Args:
            tape: The tape of that forward pass.
            error: Gradient with respect to its output, of its shape, divided by ``factor``.
            factor: Factor of the error, applied where the tensors are small.

        Returns:
            ``delta`` of shape ``(rows, width of the first layer)``: the gradient with respect to
            the input is ``delta @ first.weight``; and the gradients of the parameters.
        """
        delta, rows = error.reshape(-1, error.shape[-1]), tape.last
        if not tape.layers and factor != 1:
            delta, factor = delta * factor, 1.0
        grads: ParameterGrads = []
        for i in reversed(range(len(self._weights))):
            weight, bias = self._weights[i], self._biases[i]
            found: ParameterGrads = [(weight, delta.t().mm(rows))]
            if bias is not None:
                found.append((bias, delta.sum(0)))
            if i > 0:
                delta = delta.mm(weight)
            if factor != 1:
                multiply_([delta, *[grad for _, grad in found]], factor)
                factor = 1.0
            grads += found
            if i > 0:
                layer = tape.layers[i - 1]
                delta = self._backward_through(i - 1, layer, delta, grads)
                rows = layer.input
        return delta, grads

    def jacobian(self, input: Tensor) -> Tensor:
        """Compute the derivative of the output by all parameters for each sample.

        The MLP must have ``norm=None``, since normalisation mixes samples.

        Args:
            input: ``(batch, input_size)``.

        Returns:
            ``(batch, output_size, parameters)``; parameters in the order of :meth:`parameters`.
        """
        size = len(self._weights[-1])
        _, tape = self._forward(input.repeat_interleave(size, 0))
        delta = torch.eye(size, dtype=input.dtype, device=input.device).repeat(len(input), 1)
        rows, parts = tape.last, []
        for i in reversed(range(len(self._weights))):
            parts += [delta, (delta.unsqueeze(2) * rows.unsqueeze(1)).flatten(1)]
            if i > 0:
                layer = tape.layers[i - 1]
                delta = self._backward_through(i - 1, layer, delta.mm(self._weights[i]), [])
                rows = layer.input
        return torch.cat(parts[::-1], 1).view(len(input), size, -1)

    def _backward_through(
        self, i: int, layer: _Layer, grad: Tensor, grads: ParameterGrads
    ) -> Tensor:
        """Backpropagate from the output of a hidden layer to its weighted sum."""
        if self.activation == "relu":
            grad = relu_backward(grad, layer.output, 0)
        else:
            grad = sigmoid_backward(grad, layer.output)
        if layer.mean is None:
            return grad
        gain, shift = self._scalings[i]
        wanted = [True, True, True]
        if self.norm == "batch":
            stats = (layer.mean, layer.inverse)
            back = batch_norm_backward(
                grad, layer.summed, gain, None, None, *stats, True, _EPS, wanted
            )
        else:
            back = layer_norm_backward(
                grad, layer.summed, gain.shape, layer.mean, layer.inverse, gain, shift, wanted
            )
        grads += [(gain, back[1]), (shift, back[2])]
        return back[0]  # type: ignore[no-any-return]
