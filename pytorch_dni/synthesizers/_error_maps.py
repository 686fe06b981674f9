"""Linear maps from an error to the gradient of an activation, for all pairs of shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from .._gradients import ParameterGrads

_MOST_CELLS = 16  # of an error whose positions are not those of the activation
# A product whose result has shorter rows than a vector register or two is several times as slow as
# the transposed one (a batch of 256, 10 columns, one thread of an AMD EPYC: 3 times at 256 rows of
# the result, 5 times at 1024; from 16 columns on, it makes no difference).
_SHORT_ROW = 16


class MapTape(NamedTuple):
    """The tensors that one :meth:`ErrorMap.record` keeps for its backward pass.

    Attributes:
        rows: The error, ``(rows, features)``.
        unit: Number by which the rows are to be divided.
    """

    rows: Tensor
    unit: float


class ErrorMap(nn.Module):
    """A linear map without bias from an error to a gradient; base class of the maps.

    Shape:
        Error ``(batch, *error positions, error features)`` to gradient
        ``(batch, *positions, features)``.
    """

    weight: nn.Parameter

    def forward(self, error: Tensor, positions: Sequence[int]) -> Tensor:
        """Compute the gradient, recorded by autograd.

        Args:
            error: The error, features last.
            positions: Shape of the activation without its features: ``(batch, *positions)``.
        """
        raise NotImplementedError

    def record(
        self, error: Tensor, base: Tensor, unit: float, factor: float, gain: float = 0.0
    ) -> tuple[Tensor, MapTape] | None:
        """Compute ``factor / unit`` times the gradient, plus ``gain * base``, without a graph.

        Args:
            error: The error, features last.
            base: A tensor of the gradient's shape.
            unit: Number by which the error is divided.
            factor: Number by which the result is multiplied.
            gain: Factor of ``base``.

        Returns:
            The sum, and the tape of its backward pass; None where autograd has to compute it.
        """
        return None

    def backpropagate(self, tape: MapTape, delta: Tensor, factor: float) -> ParameterGrads:
        """Return the weight's gradient; ``factor * delta`` is the gradient of the output."""
        weight, rows = self.weight, tape.rows
        delta, factor = _matrix(delta, len(weight)), factor / tape.unit
        if rows.shape[1] >= _SHORT_ROW:
            return [(weight, delta.t().mm(rows).mul_(factor))]
        transposed = torch.addmm(weight.detach().t(), rows.t(), delta, beta=0, alpha=factor)
        return [(weight, transposed.t().contiguous())]


class PositionMap(ErrorMap):
    """Maps the error to the gradient at the same position; vectors have one position.

    Args:
        error_features: Features of the error.
        features: Features of the activation.
        identity: Start at the identity instead of zero; both must have the same features.
    """

    def __init__(self, error_features: int, features: int, identity: bool = False) -> None:
        super().__init__()
        start = torch.eye(features) if identity else torch.zeros(features, error_features)
        self.weight = nn.Parameter(start)

    def fits(self, error: Tensor, positions: Sequence[int]) -> bool:
        """Return whether an error has the positions of an activation."""
        return error.shape[-1] == self.weight.shape[1] and error.numel() == math.prod(
            [*positions, error.shape[-1]]
        )

    def forward(self, error: Tensor, positions: Sequence[int]) -> Tensor:
        """Compute the gradient, recorded by autograd."""
        rows = F.linear(error.reshape(-1, error.shape[-1]), self.weight)
        return rows.view(*positions, len(self.weight))

    def record(
        self, error: Tensor, base: Tensor, unit: float, factor: float, gain: float = 0.0
    ) -> tuple[Tensor, MapTape] | None:
        """Compute as in the base class; there is always a tape."""
        rows, added = _matrix(error, error.shape[-1]), _matrix(base, base.shape[-1])
        output = torch.addmm(added, rows, self.weight.t(), beta=gain, alpha=factor / unit)
        return output if added is base else output.view(base.shape), MapTape(rows, unit)


class SpreadMap(ErrorMap):
    """Maps the whole error of a sample to the gradients at all positions of its activation.

    Where the full matrix would be large, the gradient is computed at a grid of cells, from which
    it is interpolated; an error with many positions is averaged over a grid as well.

    Args:
        error_shape: ``(*error positions, error features)`` of one sample.
        shape: ``(*positions, features)`` of one sample.
        max_parameters: Bound of the matrix's size; at least one cell is kept.
    """

    def __init__(
        self, error_shape: Sequence[int], shape: Sequence[int], max_parameters: int
    ) -> None:
        super().__init__()
        *error_positions, error_features = error_shape
        *positions, features = shape
        self._error_cells = _cells(error_positions, _MOST_CELLS)
        inputs = error_features * math.prod(self._error_cells)
        self._cells = _cells(positions, max(1, max_parameters // (inputs * features)))
        self._features = features
        self._error_features = error_features
        self.weight = nn.Parameter(torch.zeros(features * math.prod(self._cells), inputs))

    def fits(self, error: Tensor, positions: Sequence[int]) -> bool:
        """Return whether an error has the features and the samples of an activation."""
        same = error.dim() == len(self._error_cells) + 2
        return same and error.shape[-1] == self._error_features and error.shape[0] == positions[0]

    def forward(self, error: Tensor, positions: Sequence[int]) -> Tensor:
        """Compute the gradient, recorded by autograd."""
        cells = F.linear(self._rows(error), self.weight)
        maps = cells.view(len(cells), self._features, *self._cells)
        if [*positions[1:]] != self._cells:
            maps = _resized(maps, positions[1:])
        return maps.movedim(1, -1)

    def record(
        self, error: Tensor, base: Tensor, unit: float, factor: float, gain: float = 0.0
    ) -> tuple[Tensor, MapTape] | None:
        """Compute as in the base class; None where the gradient is interpolated."""
        if [*base.shape[1:-1]] != self._cells:
            return None
        rows, added = self._rows(error), base.movedim(-1, 1).flatten(1)
        output = torch.addmm(added, rows, self.weight.t(), beta=gain, alpha=factor / unit)
        maps = output.view(len(output), base.shape[-1], *self._cells)
        return maps.movedim(1, -1), MapTape(rows, unit)

    def backpropagate(self, tape: MapTape, delta: Tensor, factor: float) -> ParameterGrads:
        """Return the weight's gradient; ``factor * delta`` is the gradient of the output."""
        return super().backpropagate(tape, delta.movedim(-1, 1), factor)

    def _rows(self, error: Tensor) -> Tensor:
        """Return the error as ``(batch, features * cells)``."""
        maps = error.movedim(-1, 1)
        if [*maps.shape[2:]] != self._error_cells:
            maps = _averaged(maps, self._error_cells)
        return maps.flatten(1)


class ConvolutionMap(ErrorMap):
    """Maps the error at a map's positions to a map of the same or a higher resolution.

    It is a transposed convolution, as the gradient of a convolution with a stride is. Where that
    would have many parameters, it computes a coarser map, from which the gradient is interpolated.

    Args:
        error_features: Channels of the error.
        features: Channels of the activation.
        stride: Resolution of the activation over that of the error.
        max_parameters: Bound of the number of parameters; the resolution of the error is kept.
        identity: Start at the identity instead of zero; needs ``stride=1`` and the same channels.
    """

    def __init__(
        self,
        error_features: int,
        features: int,
        stride: int,
        max_parameters: int,
        identity: bool = False,
    ) -> None:
        super().__init__()
        most = max_parameters // (error_features * features)
        finer = [n for n in range(1, stride + 1) if stride % n == 0 and _side(n) ** 2 <= most]
        self._stride, self._own_stride = stride, max(finer, default=1)
        side = _side(self._own_stride)
        weight = torch.zeros(error_features, features, side, side)
        if identity:
            weight[:, :, side // 2, side // 2] = torch.eye(features)
        self.weight = nn.Parameter(weight)

    def fits(self, error: Tensor, positions: Sequence[int]) -> bool:
        """Return whether the activation's resolution is the error's times the stride."""
        if error.dim() != 4 or error.shape[-1] != len(self.weight):
            return False
        expected = [len(error), *(self._stride * size for size in error.shape[1:3])]
        return [*positions] == expected

    def forward(self, error: Tensor, positions: Sequence[int]) -> Tensor:
        """Compute the gradient, recorded by autograd."""
        maps = error.movedim(-1, 1)
        stride = self._own_stride
        found = F.conv_transpose2d(maps, self.weight, None, stride, _padding(stride))
        if stride != self._stride:
            found = _resized(found, positions[1:])
        return found.movedim(1, -1)


def error_map(
    error_shape: Sequence[int], shape: Sequence[int], max_parameters: int, identity: bool
) -> PositionMap | SpreadMap | ConvolutionMap | None:
    """Return the map from errors of a shape to activations of another; None where there is none.

    Args:
        error_shape: ``(batch, *error positions, error features)``.
        shape: ``(batch, *positions, features)``.
        max_parameters: Bound of the number of parameters where positions differ.
        identity: Start at the identity where the two shapes are equal.
    """
    (*before, error_features), (*positions, features) = error_shape, shape
    identity = identity and error_features == features
    maps = len(before) == len(positions) == 3 and math.prod(before[1:]) > 1
    if before == positions and not maps:
        return PositionMap(error_features, features, identity)
    if maps and before[0] == positions[0] and _stride(before, positions):
        stride = _stride(before, positions)
        identity = identity and stride == 1
        return ConvolutionMap(error_features, features, stride, max_parameters, identity)
    if len(before) == 1 and before[0] == math.prod(positions):
        return PositionMap(error_features, features)
    if before[:1] == positions[:1] and len(before) <= 4 and len(positions) <= 4:
        return SpreadMap(error_shape[1:], shape[1:], max_parameters)
    return None


def _matrix(tensor: Tensor, columns: int) -> Tensor:
    """Return a tensor as a matrix; a view of one that is so already takes longer than this."""
    return tensor if tensor.dim() == 2 else tensor.reshape(-1, columns)


def _stride(before: Sequence[int], positions: Sequence[int]) -> int:
    """Return how much finer one map is than another; 0 where it is no whole number."""
    (height, width), (error_height, error_width) = positions[1:], before[1:]
    stride = height // max(error_height, 1)
    fits = stride * error_height == height and stride * error_width == width
    return stride if fits else 0


def _padding(stride: int) -> int:
    """Return by how much a transposed convolution reaches beyond its stride, on each side."""
    return max(1, stride // 2)


def _side(stride: int) -> int:
    """Return the side of a transposed convolution's kernel."""
    return stride + 2 * _padding(stride)


def _cells(positions: Sequence[int], most: int) -> list[int]:
    """Return the finest grid over some positions that has at most so many cells."""
    cells = [*positions]
    while cells and math.prod(cells) > most:
        largest = max(range(len(cells)), key=lambda i: cells[i])
        if cells[largest] == 1:
            break
        cells[largest] = (cells[largest] + 1) // 2
    return cells


def _resized(maps: Tensor, positions: Sequence[int]) -> Tensor:
    return F.interpolate(maps, [*positions], mode="nearest")


def _averaged(maps: Tensor, cells: Sequence[int]) -> Tensor:
    pools: dict[int, Callable[..., Tensor]] = {
        1: F.adaptive_avg_pool1d,
        2: F.adaptive_avg_pool2d,
        3: F.adaptive_avg_pool3d,
    }
    return pools[len(cells)](maps, [*cells])
