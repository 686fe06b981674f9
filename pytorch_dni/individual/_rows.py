"""Forms of per-example gradients that are zero in most rows of a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ._directions import ParameterDirections
from ._forms import GradientForm, OuterProducts


class RowGradients(NamedTuple):
    """Per-example gradients of an embedding, by the rows that each example uses.

    Attributes:
        indices: The rows ``(batch, used)``; -1 where an example uses fewer rows than another.
        values: Their gradients ``(batch, used, width)``; zero there.
    """

    indices: Tensor
    values: Tensor


class EmbeddedRows(GradientForm):
    """Gradients of an embedding: each position adds its output gradient to one row.

    Args:
        grads: Output gradients ``(batch, positions, width)``.
        indices: The rows ``(batch, positions)``.
        shape: Shape of the weight ``(rows, width)``.
    """

    def __init__(self, grads: Tensor, indices: Tensor, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.grads, self.indices = grads, indices

    @property
    def batch(self) -> int:
        """Number of examples."""
        return self.grads.shape[0]

    def write(self, out: Tensor, add: bool) -> None:
        """Write the gradients into ``out (batch, *shape)``, or add them to it."""
        if not add:
            out.zero_()
        rows, width = self.shape
        first = torch.arange(self.batch, device=self.indices.device)[:, None] * rows
        flat = out.view(self.batch * rows, width)
        flat.index_add_(0, (self.indices + first).flatten(), self.grads.reshape(-1, width))

    def used(self) -> tuple[Tensor, Tensor]:
        """Return the rows that each example uses, and their gradients.

        Returns:
            Indices ``(batch, used)``, which end in -1 where an example uses fewer rows, and
            gradients ``(batch, used, width)``, which are zero there.
        """
        indices, order = self.indices.sort(1)
        new = torch.ones_like(indices, dtype=torch.bool)
        new[:, 1:] = indices[:, 1:] != indices[:, :-1]
        place = new.cumsum(1) - 1
        used = int(place.max()) + 1 if place.numel() else 0
        rows = indices.new_full((self.batch, used), -1).scatter_(1, place, indices)
        width = self.grads.shape[2]
        grads = self.grads.gather(1, order[:, :, None].expand(-1, -1, width))
        values = grads.new_zeros(self.batch, used, width)
        return rows, values.scatter_add_(1, place[:, :, None].expand(-1, -1, width), grads)

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each example's gradient ``(batch,)``."""
        norms: Tensor = torch.linalg.vector_norm(self.used()[1].flatten(1), dim=1)
        return norms

    def gram(self) -> Tensor:
        """Return the inner products of all pairs of examples ``(batch, batch)``."""
        rows, place = torch.unique(self.indices, return_inverse=True)
        compact = EmbeddedRows(self.grads, place, (len(rows), self.shape[1]))
        result = self.grads.new_zeros(self.batch, self.batch)
        # Some columns of the width at a time bound the memory.
        step = max(1, 2**22 // max(1, self.batch * len(rows)))
        for start in range(0, self.shape[1], step):
            part = compact.grads[:, :, start : start + step]
            columns = EmbeddedRows(part, place, (len(rows), part.shape[2])).full().values
            result.addmm_(columns.flatten(1), columns.flatten(1).T)
        return result

    def project(self, directions: ParameterDirections) -> Tensor:
        """Return each example's gradient along random directions ``(batch, dim)``."""
        assert directions.columns is not None  # an embedding is a matrix
        return ((self.grads @ directions.columns) * directions.rows[self.indices]).sum(1)

    def as_products(self) -> OuterProducts:
        """Return the same gradients as outer products with vectors that are one in one row."""
        rows = F.one_hot(self.indices, self.shape[0]).to(self.grads.dtype)
        return OuterProducts(rows.transpose(1, 2)[:, None], self.grads[:, None], self.shape)

    def joined(self, other: GradientForm) -> GradientForm:
        """Return the sum with the gradients from another use of the same parameter."""
        if isinstance(other, EmbeddedRows):
            grads = torch.cat([self.grads, other.grads], 1)
            return EmbeddedRows(grads, torch.cat([self.indices, other.indices], 1), self.shape)
        return self.as_products().joined(other)

    def any_tensor(self) -> Tensor:
        """Return a tensor that shows type and device."""
        return self.grads


class RowBlocks(GradientForm):
    """Gradients of a parameter some of whose rows are used apart; other rows are zero.

    Args:
        blocks: Gradients of disjoint ranges of rows, by the number of the first row.
        shape: Shape of the whole parameter.
    """

    def __init__(self, blocks: Mapping[int, GradientForm], shape: Sequence[int]) -> None:
        super().__init__(shape)
        self._blocks = dict(blocks)

    @property
    def batch(self) -> int:
        """Number of examples."""
        return next(iter(self._blocks.values())).batch

    def write(self, out: Tensor, add: bool) -> None:
        """Write the gradients into ``out (batch, *shape)``, or add them to it."""
        if not add:
            out.zero_()
        for first, form in self._blocks.items():
            form.write(out[:, first : first + form.shape[0]], add)

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each example's gradient ``(batch,)``."""
        norms = torch.stack([form.norms() for form in self._blocks.values()])
        total: Tensor = torch.linalg.vector_norm(norms, dim=0)
        return total

    def gram(self) -> Tensor:
        """Return the inner products of all pairs of examples ``(batch, batch)``."""
        return reduce(torch.add, [form.gram() for form in self._blocks.values()])

    def project(self, directions: ParameterDirections) -> Tensor:
        """Return each example's gradient along random directions ``(batch, dim)``."""
        return reduce(
            torch.add,
            [
                form.project(directions.of_rows(first, form.shape[0]))
                for first, form in self._blocks.items()
            ],
        )

    def joined(self, other: GradientForm) -> GradientForm:
        """Return the sum with the gradients from another use of the same parameter."""
        if not isinstance(other, RowBlocks):
            return self.full().joined(other)
        ranges = {
            (first, first + form.shape[0])
            for blocks in (self._blocks, other._blocks)
            for first, form in blocks.items()
        }
        in_order = sorted(ranges)
        if any(end > first for (_, end), (first, _) in pairwise(in_order)):
            return self.full().joined(other)
        blocks = dict(self._blocks)
        for first, form in other._blocks.items():
            blocks[first] = blocks[first].joined(form) if first in blocks else form
        return RowBlocks(blocks, self.shape)

    def any_tensor(self) -> Tensor:
        """Return a tensor that shows type and device."""
        return next(iter(self._blocks.values())).any_tensor()
