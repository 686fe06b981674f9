"""Fixed random directions along which gradients are projected."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor


class ParameterDirections:
    """Random directions of one parameter, as products of a vector over rows and one over columns.

    Direction ``j`` of a matrix is the outer product of ``rows[:, j]`` and ``columns[:, j]``.

    Args:
        rows: ``(rows, dim)``.
        columns: ``(columns, dim)``; None for a parameter of one dimension.
    """

    def __init__(self, rows: Tensor, columns: Tensor | None) -> None:
        self.rows, self.columns = rows, columns

    def of_rows(self, first: int, count: int) -> ParameterDirections:
        """Return the directions of some of the rows."""
        return ParameterDirections(self.rows[first : first + count], self.columns)


class Directions:
    """Draws the random directions of all parameters; they depend on name, shape and seed alone.

    Entries are 1 or -1 with equal probability, those of the rows divided by ``sqrt(dim)``, so that
    the inner product of two projections is that of the gradients in the mean.

    Args:
        dim: Number of directions.
        seed: Determines them.
    """

    def __init__(self, dim: int, seed: int) -> None:
        self._dim, self._seed = dim, seed
        self._drawn: dict[str, ParameterDirections] = {}

    def of(self, name: str, shape: Sequence[int], like: Tensor) -> ParameterDirections:
        """Return the directions of a parameter, on the device and in the type of a tensor."""
        drawn = self._drawn.get(name)
        if drawn is None:
            rows = shape[0] if len(shape) else 1
            columns = self._draw(name, "columns", prod(shape[1:]), like)
            drawn = ParameterDirections(
                self._draw(name, "rows", rows, like).div_(sqrt(self._dim)),
                columns if len(shape) > 1 else None,
            )
            self._drawn[name] = drawn
        return drawn

    def _draw(self, name: str, side: str, count: int, like: Tensor) -> Tensor:
        text = f"{self._seed}/{name}/{side}".encode()
        seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "little", signed=True)
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (count, self._dim), generator=generator, dtype=torch.int8)
        return signs.to(like.device).to(like.dtype).mul_(2).sub_(1)
