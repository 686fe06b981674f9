"""Forms of per-example gradients: what is needed to compute with them without holding them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ._directions import ParameterDirections
from ._products import gram_of_products, norms_of_products, project_products


class GradientForm(ABC):
    """The gradients of one parameter, one for each example, in a form that need not hold them.

    Args:
        shape: Shape of the parameter.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        return tuple(self._shape)

    @property
    @abstractmethod
    def batch(self) -> int:
        """Number of examples."""

    @abstractmethod
    def write(self, out: Tensor, add: bool) -> None:
        """Write the gradients into ``out (batch, *shape)``, or add them to it."""

    @abstractmethod
    def norms(self) -> Tensor:
        """Return the Euclidean norm of each example's gradient ``(batch,)``."""

    @abstractmethod
    def gram(self) -> Tensor:
        """Return the inner products of all pairs of examples ``(batch, batch)``."""

    @abstractmethod
    def project(self, directions: ParameterDirections) -> Tensor:
        """Return each example's gradient along random directions ``(batch, dim)``."""

    @abstractmethod
    def joined(self, other: GradientForm) -> GradientForm:
        """Return the sum with the gradients from another use of the same parameter."""

    def as_products(self) -> OuterProducts | None:
        """Return the same gradients as outer products; None where they are of another form."""
        return None

    def full(self) -> FullGradients:
        """Return the same gradients, held as they are."""
        first = self.any_tensor()
        out = first.new_empty((self.batch, *self.shape))
        self.write(out, add=False)
        return FullGradients(out)

    @abstractmethod
    def any_tensor(self) -> Tensor:
        """Return a tensor that shows type and device."""


class FullGradients(GradientForm):
    """Per-example gradients that are held as they are, for parameters that are small.

    Args:
        values: ``(batch, *shape)``.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self._norms: Tensor | None = None
        self._gram: Tensor | None = None

    @property
    def batch(self) -> int:
        """Number of examples."""
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        return tuple(self.values.shape[1:])

    def write(self, out: Tensor, add: bool) -> None:
        """Write the gradients into ``out (batch, *shape)``, or add them to it."""
        if add:
            out.add_(self.values)
        else:
            out.copy_(self.values)

    @property
    def _flat(self) -> Tensor:
        values = self.values
        return values if values.dim() == 2 else values.reshape(self.batch, -1)

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each example's gradient ``(batch,)``."""
        if self._norms is None:
            self._norms = torch.linalg.vector_norm(self._flat, dim=1)
        return self._norms

    def gram(self) -> Tensor:
        """Return the inner products of all pairs of examples ``(batch, batch)``."""
        if self._gram is None:
            self._gram = self._flat @ self._flat.T
        return self._gram

    def project(self, directions: ParameterDirections) -> Tensor:
        """Return each example's gradient along random directions ``(batch, dim)``."""
        rows, columns = directions.rows, directions.columns
        if columns is None:
            return self._flat @ rows
        matrices = self.values.reshape(self.batch, len(rows), len(columns))
        return torch.einsum("boi,oj,ij->bj", matrices, rows, columns)

    def joined(self, other: GradientForm) -> GradientForm:
        """Return the sum with the gradients from another use of the same parameter."""
        return FullGradients(self.values + other.full().values)

    def full(self) -> FullGradients:
        """Return the same gradients, held as they are."""
        return self

    def any_tensor(self) -> Tensor:
        """Return a tensor that shows type and device."""
        return self.values


class OuterProducts(GradientForm):
    """Gradients ``left @ right``, summed over positions, of a weight that multiplies its input.

    Args:
        left: Output gradients ``(batch, groups, outputs, positions)``.
        right: Inputs ``(batch, groups, positions, inputs)``.
        shape: Shape of the weight; ``groups * outputs`` rows.
    """

    def __init__(self, left: Tensor, right: Tensor, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self._left, self._right = left, right

    @property
    def left(self) -> Tensor:
        """Output gradients ``(batch, groups, outputs, positions)``."""
        return self._left

    @property
    def right(self) -> Tensor:
        """Inputs ``(batch, groups, positions, inputs)``."""
        return self._right

    @property
    def batch(self) -> int:
        """Number of examples."""
        return self.left.shape[0]

    def write(self, out: Tensor, add: bool) -> None:
        """Write the gradients into ``out (batch, *shape)``, or add them to it."""
        left, right = self.left.flatten(0, 1), self.right.flatten(0, 1)
        product = out.view(len(left), left.shape[1], right.shape[2])
        if add:
            torch.baddbmm(product, left, right, out=product)
        else:
            torch.bmm(left, right, out=product)

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each example's gradient ``(batch,)``."""
        return norms_of_products(self.left, self.right)

    def gram(self) -> Tensor:
        """Return the inner products of all pairs of examples ``(batch, batch)``."""
        return gram_of_products(self.left, self.right)

    def project(self, directions: ParameterDirections) -> Tensor:
        """Return each example's gradient along random directions ``(batch, dim)``."""
        return project_products(self.left, self.right, directions)

    def joined(self, other: GradientForm) -> GradientForm:
        """Return the sum with the gradients from another use of the same parameter."""
        products = other.as_products()
        if products is None or products.left.shape[1:3] != self.left.shape[1:3]:
            return self.full().joined(other)
        left = torch.cat([self.left, products.left], 3)
        return OuterProducts(left, torch.cat([self.right, products.right], 2), self.shape)

    def as_products(self) -> OuterProducts | None:
        """Return the same gradients as outer products."""
        return self

    def any_tensor(self) -> Tensor:
        """Return a tensor that shows type and device."""
        return self.left


class VectorProducts(OuterProducts):
    """Outer products of one output gradient and one input for each example.

    Norms and Gram matrices are products of those of the two, which a bias shares.

    Args:
        left: Output gradients ``(batch, outputs)``.
        right: Inputs ``(batch, inputs)``.
        shape: Shape of the weight.
    """

    def __init__(self, left: FullGradients, right: FullGradients, shape: Sequence[int]) -> None:
        self._shape, self._vectors = shape, (left, right)

    @property
    def left(self) -> Tensor:
        """Output gradients ``(batch, 1, outputs, 1)``."""
        return self._vectors[0].values[:, None, :, None]

    @property
    def right(self) -> Tensor:
        """Inputs ``(batch, 1, 1, inputs)``."""
        return self._vectors[1].values[:, None, None]

    def write(self, out: Tensor, add: bool) -> None:
        """Write the gradients into ``out (batch, *shape)``, or add them to it."""
        left, right = (vector.values for vector in self._vectors)
        if add:
            out.addcmul_(left[:, :, None], right[:, None])
        else:  # a product of matrices takes twice as long as this one
            torch.mul(left[:, :, None], right[:, None], out=out)

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each example's gradient ``(batch,)``."""
        left, right = self._vectors
        return left.norms() * right.norms()

    def gram(self) -> Tensor:
        """Return the inner products of all pairs of examples ``(batch, batch)``."""
        left, right = self._vectors
        return left.gram() * right.gram()
