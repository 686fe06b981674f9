"""Layers that the ready-made synthesizers are put together from."""

from itertools import pairwise

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from ..errors import SynthesizerError


class BatchStatNorm(nn.Module):
    """Batch normalisation by the batch's own statistics, over all dimensions but the last.

    No running statistics: a synthesizer never runs in evaluation. A batch of one row, which has
    no statistics, passes through.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        if len(rows) < 2:
            return input
        return F.batch_norm(rows, None, None, self.weight, self.bias, training=True).view_as(input)


def norm_layer(norm: str | None, size: int) -> list[nn.Module]:
    """``"layer"``, ``"batch"`` or nothing, for features in the last dimension."""
    if norm is None:
        return []
    if norm == "layer":
        return [nn.LayerNorm(size, elementwise_affine=False)]
    if norm == "batch":
        return [BatchStatNorm(size)]
    raise SynthesizerError(f"norm must be 'layer', 'batch' or None, not {norm!r}")


def perceptron(
    input_size: int,
    hidden_size: int,
    output_size: int,
    num_layers: int,
    norm: str | None,
    activation: type[nn.Module],
) -> nn.Sequential:
    """``num_layers`` hidden layers and a linear one over the last dimension."""
    if num_layers < 0:
        raise SynthesizerError(f"num_layers must not be negative, got {num_layers}")
    sizes = [input_size, *[hidden_size] * num_layers]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), *norm_layer(norm, after), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], output_size))


def zero_(layer: nn.Module) -> None:
    """Start a synthesizer's last layer at zero, so that it first predicts no gradient at all.

    Source: Jaderberg et al. 2017, appendix: the last layers of synthesizers start at zero.
    """
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)
