"""Norms, inner products and projections of sums of outer products, without making the sums.

``left`` is ``(batch, groups, outputs, positions)`` and ``right`` ``(batch, groups, positions,
inputs)``; the gradient of an example is ``left @ right`` for each group. Two ways lead to inner
products: from the inner products of positions, or from the gradients of a few examples or outputs
at a time. Each function takes the one with fewer multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._directions import ParameterDirections

_MOST_VALUES = 2**22  # numbers in a temporary tensor, about the size of a cache


def _ranges(count: int, values_each: int) -> Iterator[slice]:
    """Return ranges of so few items that their temporary values stay below the limit."""
    step = max(1, _MOST_VALUES // max(1, values_each))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def norms_of_products(left: Tensor, right: Tensor) -> Tensor:
    """Return the norm of each example's gradient ``(batch,)``.

    With T positions, O outputs and I inputs, the inner products of positions take T T (O + I)
    multiplications, the gradients T O I.
    """
    batch, groups, outputs, positions = left.shape
    inputs = right.shape[3]
    by_positions = positions * (outputs + inputs) <= outputs * inputs
    values = groups * (2 * positions**2 if by_positions else outputs * inputs)
    squares = []
    for examples in _ranges(batch, values):
        a, b = left[examples].flatten(0, 1), right[examples].flatten(0, 1)
        if by_positions:
            products = torch.bmm(a.mT, a).mul_(torch.bmm(b, b.mT))
            # A sum of squares, but for rounding.
            square = products.sum((1, 2)).clamp_min_(0)
        else:
            square = torch.linalg.vector_norm(torch.bmm(a, b).flatten(1), dim=1).square_()
        squares.append(square.view(-1, groups).sum(1))
    return torch.cat(squares).sqrt_() if squares else left.new_zeros(0)


def gram_of_products(left: Tensor, right: Tensor) -> Tensor:
    """Return the inner products of the gradients of all pairs of examples ``(batch, batch)``.

    With B examples, the inner products of positions take B B T T (O + I) multiplications for each
    group, the gradients B T O I + B B O I.
    """
    batch, groups, outputs, positions = left.shape
    inputs = right.shape[3]
    result = left.new_zeros(batch, batch)
    by_positions = batch * positions**2 * (outputs + inputs) <= (
        (positions + batch) * outputs * inputs
    )
    for group in range(groups):
        add = _add_by_positions if by_positions else _add_by_gradients
        add(result, left[:, group], right[:, group])
    return result


def _add_by_positions(result: Tensor, left: Tensor, right: Tensor) -> None:
    batch, outputs, positions = left.shape
    a, b = left.mT.reshape(-1, outputs), right.reshape(-1, right.shape[2])
    for examples in _ranges(batch, 2 * positions * positions * batch):
        rows = slice(examples.start * positions, examples.stop * positions)
        products = (a[rows] @ a.T).mul_(b[rows] @ b.T)
        result[examples] += products.view(-1, positions, batch, positions).sum((1, 3))


def _add_by_gradients(result: Tensor, left: Tensor, right: Tensor) -> None:
    batch, inputs = len(left), right.shape[2]
    for outputs in _ranges(left.shape[1], batch * inputs):
        gradients = torch.bmm(left[:, outputs], right).flatten(1)
        result.addmm_(gradients, gradients.T)


def project_products(left: Tensor, right: Tensor, directions: ParameterDirections) -> Tensor:
    """Return each example's gradient along random directions ``(batch, dim)``.

    A direction is a product of a vector over rows and one over columns: each position is projected
    on both, and the products are summed.
    """
    batch, groups, outputs, positions = left.shape
    assert directions.columns is not None  # a weight has columns
    dim = directions.rows.shape[1]
    rows = directions.rows.view(groups, outputs, dim)
    result = []
    for examples in _ranges(batch, 2 * groups * positions * dim):
        a = torch.matmul(left[examples].mT, rows)
        result.append(a.mul_(torch.matmul(right[examples], directions.columns)).sum((1, 2)))
    return torch.cat(result) if result else left.new_zeros(0, dim)
