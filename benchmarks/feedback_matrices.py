"""Matrices that map the error at the output to synthetic gradients, written by hand.

The error ``e`` (batch, classes) is the gradient of the loss at the output; ``m`` is its running
root mean square, with the present error. At a cut, ``u`` is the running root mean square of the
true gradient ``t`` (batch, features), before a step and ``u'`` with the present one. The synthetic
gradient is ``u (e / m) D^T``. A lesson is the gradient of the mean of ``((e / m) D^T - t / u')^2``
by ``D``, which equals ``2 / size(t) (D c / m^2 - t^T e / (m u'))`` with ``c = e^T e``: no tensor of
the size of the activation is computed for it.

The matrices are stored as (classes, features): in this layout the products of a lesson are faster.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .hand_written import DECAY


class RunningSize:
    """A root mean square over steps, with the usual bias correction."""

    def __init__(self) -> None:
        self._mean_square, self._steps = 0.0, 0

    @property
    def value(self) -> float:
        """The root mean square so far."""
        return math.sqrt(self._mean_square + 1e-37)

    def add(self, tensor: Tensor) -> None:
        """Count one more tensor."""
        flat = tensor.reshape(-1)
        self._steps += 1
        weight = (1 - DECAY) / (1 - DECAY**self._steps)
        self._mean_square += weight * (torch.dot(flat, flat).item() / len(flat) - self._mean_square)


class Matrices(ABC):
    """The matrices of all cuts, which start at zero, and one Adam for all of them.

    In a step: :meth:`receive_error` once, then :meth:`predict` and :meth:`learn` of each cut, then
    :meth:`step` where something was learned.

    Args:
        shapes: Shape of the activation at each cut, without the batch.
        classes: Number of classes.
        like: A tensor of the type and device of the network.

    Attributes:
        values: The matrices, each (classes, features).
    """

    values: Sequence[Tensor]

    def __init__(self, shapes: Sequence[tuple[int, ...]], classes: int, like: Tensor) -> None:
        self._shapes, self._classes = shapes, classes
        self._features = [math.prod(shape) for shape in shapes]
        # One parameter for all: the optimizer takes less time for one than for many.
        self._parameter = self._zeros(like)
        self._parameter.grad = torch.zeros_like(self._parameter)
        self.values = self._split(self._parameter)
        self._grads = self._split(self._parameter.grad)
        self._grads = self._split(self._parameter.grad)
        self._optimizer = torch.optim.Adam(
            [self._parameter.requires_grad_()], lr=1e-2, betas=(0.5, 0.99), fused=True
        )
        self._sizes = [RunningSize() for _ in shapes]
        self._error_size = RunningSize()
        self._error, self._inverse = like.new_zeros(()), 1.0
        self._empty = like.new_zeros(())

    def receive_error(self, error: Tensor) -> None:
        """Take the error of this step."""
        self._error_size.add(error)
        self._error, self._inverse = error, 1 / self._error_size.value

    def predict(self, cut: int) -> Tensor:
        """Return the synthetic gradient at a cut."""
        gradient = self._predict(cut)
        shape = self._shapes[cut]
        return gradient if len(shape) == 1 else gradient.reshape(-1, *shape)

    def learn(self, cut: int, true: Tensor) -> None:
        """Compute the lesson of a cut from its true gradient."""
        self._learn(cut, true.reshape(len(true), -1))

    def step(self) -> None:
        """Take one step with the optimizer."""
        self._optimizer.step()

    def _zeros(self, like: Tensor) -> Tensor:
        return like.new_zeros(self._classes * sum(self._features))

    def _split(self, whole: Tensor) -> Sequence[Tensor]:
        pieces = whole.detach().split([self._classes * count for count in self._features])
        return [piece.view(self._classes, -1) for piece in pieces]

    @abstractmethod
    def _predict(self, cut: int) -> Tensor: ...

    @abstractmethod
    def _learn(self, cut: int, true: Tensor) -> None: ...


class SeparateMatrices(Matrices):
    """One product for each prediction, and two for each lesson."""

    def _predict(self, cut: int) -> Tensor:
        scale = self._inverse * self._sizes[cut].value
        return torch.addmm(self._empty, self._error, self.values[cut], beta=0, alpha=scale)

    def _learn(self, cut: int, true: Tensor) -> None:
        size, factor = self._sizes[cut], 2 / true.numel()
        size.add(true)
        # The error is small: the product with itself takes a microsecond or two at each cut.
        gram = self._error.t().mm(self._error)
        gradient = torch.mm(gram, self.values[cut], out=self._grads[cut])
        beta, alpha = factor * self._inverse**2, -factor * self._inverse / size.value
        gradient.addmm_(self._error.t(), true, beta=beta, alpha=alpha)


class ElementwiseMatrices(SeparateMatrices):
    """The difference of prediction and true gradient is computed, as autograd would do."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], classes: int, like: Tensor) -> None:
        super().__init__(shapes, classes, like)
        self._predictions: dict[int, Tensor] = {}

    def receive_error(self, error: Tensor) -> None:
        """Take the error of this step."""
        super().receive_error(error)
        self._predictions.clear()

    def _predict(self, cut: int) -> Tensor:
        if cut not in self._predictions:
            self._predictions[cut] = super()._predict(cut)
        return self._predictions[cut]

    def _learn(self, cut: int, true: Tensor) -> None:
        prediction, size = self._predict(cut), self._sizes[cut]
        before = size.value
        size.add(true)
        difference = torch.sub(prediction, true, alpha=before / size.value)
        factor = 2 / true.numel() * self._inverse / before
        error, gradient = self._error.t(), self._grads[cut]
        torch.addmm(self._empty, error, difference, beta=0, alpha=factor, out=gradient)


class JoinedMatrices(Matrices):
    """One product for the predictions of all cuts, and one for the lessons.

    The matrices are joined along the features, so that their shapes may differ.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], classes: int, like: Tensor) -> None:
        super().__init__(shapes, classes, like)
        self._predictions: Sequence[Tensor] | None = None
        self._true: dict[int, Tensor] = {}

    def receive_error(self, error: Tensor) -> None:
        """Take the error of this step."""
        super().receive_error(error)
        self._predictions = None

    def step(self) -> None:
        """Compute the lessons of all cuts, and take one step with the optimizer."""
        true = [self._true[cut] for cut in range(len(self._shapes))]
        factors, gram_factors = [], []
        for size, t in zip(self._sizes, true, strict=True):
            size.add(t)
            factors.append(-2 / t.numel() * self._inverse / size.value)
            gram_factors.append(2 / t.numel() * self._inverse**2)
        gradient = self._parameter.grad
        assert gradient is not None
        gram = self._error.t().mm(self._error)
        torch.matmul(gram, self._scaled(gram_factors), out=gradient)
        self._add_scaled(gradient, self._product_with_all(true), factors)
        self._true.clear()
        super().step()

    def _predict(self, cut: int) -> Tensor:
        if self._predictions is None:
            scaled = self._scaled([self._inverse * size.value for size in self._sizes])
            self._predictions = self._predict_all(scaled)
        return self._predictions[cut]

    def _learn(self, cut: int, true: Tensor) -> None:
        self._true[cut] = true

    def _zeros(self, like: Tensor) -> Tensor:
        return like.new_zeros(self._classes, sum(self._features))

    def _split(self, whole: Tensor) -> Sequence[Tensor]:
        pieces: Sequence[Tensor] = whole.detach().split(self._features, 1)
        return pieces

    def _scaled(self, factors: list[float]) -> Tensor:
        """Return the matrices, each times its factor, as one tensor."""
        return torch.cat([m * factor for m, factor in zip(self.values, factors, strict=True)], 1)

    def _add_scaled(self, gradient: Tensor, products: Tensor, factors: list[float]) -> None:
        """Add to the lessons the products with the true gradients, each times its factor."""
        pieces = products.split(self._features, 1)
        for piece, product, factor in zip(self._grads, pieces, factors, strict=True):
            piece.add_(product, alpha=factor)

    def _predict_all(self, scaled: Tensor) -> Sequence[Tensor]:
        predictions: Sequence[Tensor] = self._error.mm(scaled).split(self._features, 1)
        return predictions

    def _product_with_all(self, true: list[Tensor]) -> Tensor:
        return self._error.t().mm(torch.cat(true, 1))


class StackedMatrices(JoinedMatrices):
    """One batched product for all predictions, and one for the lessons, of equal shapes."""

    def _zeros(self, like: Tensor) -> Tensor:
        return like.new_zeros(len(self._features), self._classes, self._features[0])

    def _split(self, whole: Tensor) -> Sequence[Tensor]:
        return whole.detach().unbind()

    def _scaled(self, factors: list[float]) -> Tensor:
        return self._parameter.detach() * self._parameter.new_tensor(factors).view(-1, 1, 1)

    def _add_scaled(self, gradient: Tensor, products: Tensor, factors: list[float]) -> None:
        gradient.addcmul_(products, gradient.new_tensor(factors).view(-1, 1, 1))

    def _predict_all(self, scaled: Tensor) -> Sequence[Tensor]:
        return self._error.expand(len(scaled), *self._error.shape).bmm(scaled).unbind()

    def _product_with_all(self, true: list[Tensor]) -> Tensor:
        error = self._error.t()
        return error.expand(len(true), *error.shape).bmm(torch.stack(true))


#: How the products of the matrices are computed, by name.
MATRICES: dict[str, type[Matrices]] = {
    "each": SeparateMatrices,
    "elementwise": ElementwiseMatrices,
    "joined": JoinedMatrices,
    "stacked": StackedMatrices,
}
