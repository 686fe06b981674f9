"""A synthesizer that is a local loss: a small head at the cut that predicts the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, ClassVar, TYPE_CHECKING

import torch
from torch import Size, Tensor
from torch.nn import functional as F

from .._checks import check_whole
from .._gradients import ParameterGrads
from .._torch import log_softmax_backward, nll_loss_backward, nll_loss_forward
from ..context import is_of_other_resolution, resized
from ..errors import ContextShapeError, SynthesizerError
from ._mlp import MLP
from .base import DNI_Network, Hidden

if TYPE_CHECKING:
    from typing_extensions import Self

_MEAN, _IGNORED = 1, -100  # the operators' code for a mean over rows; the label that is ignored


class LocalLoss_DNI(DNI_Network):
    """Takes the gradient of a local loss for the synthetic one, instead of a regressed one.

    A small head on the activation predicts the context (labels, or regression targets). Its loss
    trains the head. The gradient of that loss by the activation, rescaled to the running size of
    the true gradient, is the synthetic gradient.

    Args:
        input_size: Features that the head sees: the activation's, or those of its pooled map.
        hidden_size: Width of the head's hidden layers, if it has any.
        output_size: Classes, or features of the regression target: the context's size.
        loss: ``loss(prediction, target) -> scalar`` (a mean over the batch), with prediction
            ``(rows, output_size)`` and target ``(rows,)`` labels or ``(rows, output_size)``.
        num_layers: Hidden layers of the head; 0 makes it linear.
        norm: Normalisation in the hidden layers, as in :class:`Linear_DNI`.
        pool: Maps are averaged to at most ``pool`` by ``pool`` cells before the head; None applies
            the head at every position, for targets given at every position.

    Source: the critic of Czarnecki et al. 2017, section 4 (a synthetic gradient as the gradient
    of a predicted loss). Local auxiliary losses are those of Belilovsky et al. 2019, section 3.
    """

    predicts: ClassVar[str] = "loss"
    features_last: ClassVar[bool] = True
    default_lr: ClassVar[float] = 4e-3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
        num_layers: int = 0,
        norm: str | None = "batch",
        pool: int | None = 4,
    ) -> None:
        super().__init__(input_size, hidden_size, output_size)
        if not callable(loss):
            raise SynthesizerError(f"loss must be a function, not {type(loss).__name__}")
        if pool is not None:
            check_whole("pool", pool, 1, SynthesizerError)
        self.criterion = loss
        self.pool = pool
        self.head = MLP(input_size, hidden_size, output_size, num_layers, norm)

    @classmethod
    def for_activation(
        cls, shape: Size, context_size: int | None, hidden_size: int | None, **params: Any
    ) -> Self:
        """Build for an activation of ``shape``, features last; needs ``context_size``."""
        cls._check_context(context_size)
        assert context_size is not None
        features, pool = shape[-1], params.get("pool", 4)
        if len(shape) == 4 and pool is not None:
            features *= min(pool, shape[1]) * min(pool, shape[2])
        hidden = max(32, shape[-1] // 4) if hidden_size is None else hidden_size
        return cls(features, hidden, context_size, **params)

    @classmethod
    def _check_context(cls, context_size: int | None) -> None:
        if context_size is None:
            raise SynthesizerError(f"{cls.__name__} predicts the context: give context_size")

    def forward(self, input: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Compute the head's prediction ``(*, output_size)`` from ``(*, input_size)``."""
        return self.head(input), None

    def loss(self, activation: Tensor, target: Tensor) -> Tensor:
        """Compute the head's loss, a scalar.

        Args:
            activation: Features last: ``(batch, *positions, features)``.
            target: Labels ``(*leading)`` or regression targets ``(*leading, output_size)``.
                Positions that the target lacks are averaged, or pooled where they form a map. A
                target at positions of another resolution is resized by nearest neighbours.

        Raises:
            ContextError: The shapes do not fit each other.
        """
        target = self.at_positions(activation, target)
        prediction, _ = self(self._rows(activation, target), None)
        return self._criterion(prediction, target)

    def loss_gradient(
        self, activation: Tensor, target: Tensor, gain: Tensor
    ) -> tuple[Tensor, ParameterGrads]:
        """Compute the same as in the base class, but without autograd in the head."""
        target = self.at_positions(activation, target)
        rows = leaf = activation
        if not self._at_each_position(activation, target):
            with torch.enable_grad():
                leaf = activation.detach().requires_grad_()
                rows = self._rows(leaf, target)
        prediction, tape = self.head.record(rows)
        delta, grads = self.head.backpropagate(tape, self._error(prediction, target))
        # The gain is applied to the smaller of the two factors.
        gradient = delta.mul(gain).mm(self.head.first.weight).view(rows.shape)
        if rows is not leaf:
            (gradient,) = torch.autograd.grad(rows, leaf, gradient)
        return gradient, grads

    def _error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the gradient of the loss by the head's prediction."""
        if self.criterion is F.cross_entropy and not target.is_floating_point():
            return _cross_entropy_gradient(prediction, target)
        with torch.enable_grad():
            loss = self._criterion(prediction.requires_grad_(), target)
        return torch.autograd.grad(loss, prediction)[0]

    def _criterion(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.criterion(
            prediction.flatten(0, -2), target.flatten(0, len(_leading(target)) - 1)
        )

    def check_target(self, activation: Tensor, target: Tensor, owner: str | None = None) -> None:
        """Raise :class:`ContextError` where the shapes of an activation and a target do not fit.

        Args:
            activation: Features last.
            target: The context, as in :meth:`loss`.
            owner: What the error message calls the interface.
        """
        if self._at_each_position(activation, target):
            return
        leading, positions = _leading(target), activation.shape[:-1]
        remedy = "give one target for each sample"
        if self._pools(activation):
            fits = leading == positions[:1]
            remedy += ", or pool=None and one target for each position"
        else:
            missing = len(positions) - len(leading)
            at_ends = positions[: len(leading)], positions[missing:]
            fits = 0 <= missing < len(positions) and leading in at_ends
            fits = fits or is_of_other_resolution(leading, positions)
            remedy += ", or one for each position" if len(positions) > 1 else ""
        if not fits:
            raise ContextShapeError(
                f"{owner or type(self).__name__}: a context of shape {tuple(target.shape)} does "
                f"not fit an activation of shape {tuple(activation.shape)} (features last), from "
                f"which a local head predicts it: {remedy}"
            )

    def at_positions(self, activation: Tensor, target: Tensor) -> Tensor:
        """Return a target, resized where its positions are of another resolution."""
        leading, positions = _leading(target), activation.shape[:-1]
        if self._pools(activation) or leading == positions:
            return target
        if not is_of_other_resolution(leading, positions):
            return target
        if target.is_floating_point():
            return resized(target, positions[1:])
        return resized(target.double().unsqueeze(-1), positions[1:]).squeeze(-1).to(target.dtype)

    def width(self, dimensions: int) -> int | None:
        """Return the features that an activation must have; None where that depends on its map."""
        pools = dimensions == 4 and self.pool is not None
        return None if pools else self.input_size

    def _rows(self, activation: Tensor, target: Tensor) -> Tensor:
        """Reduce the activation to the positions of the target: ``(*leading, input_size)``."""
        self.check_target(activation, target)
        if self._at_each_position(activation, target):
            return activation
        if self._pools(activation):
            return self._pooled(activation)
        leading, positions = _leading(target), activation.shape[:-1]
        if leading == positions[: len(leading)]:
            return activation.mean([*range(len(leading), len(positions))])
        return activation.mean([*range(len(positions) - len(leading))])

    def _at_each_position(self, activation: Tensor, target: Tensor) -> bool:
        return not self._pools(activation) and _leading(target) == activation.shape[:-1]

    def _pools(self, activation: Tensor) -> bool:
        return activation.dim() == 4 and self.pool is not None

    def _pooled(self, activation: Tensor) -> Tensor:
        assert self.pool is not None
        cells = (min(self.pool, activation.shape[1]), min(self.pool, activation.shape[2]))
        maps = activation.movedim(-1, 1)
        return torch.flatten(F.adaptive_avg_pool2d(maps, cells), 1)


def _leading(target: Tensor) -> Size:
    """Return the shape of a target without its features, which labels do not have."""
    return target.shape[:-1] if target.is_floating_point() else target.shape


def _cross_entropy_gradient(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute ``(softmax(prediction) - one_hot(target)) / rows``; rows labelled -100 are ignored.

    Autograd is not used: a backward pass inside a running one would take longer than all of this.
    """
    logarithms = torch.log_softmax(prediction.flatten(0, -2), -1)
    labels = target.flatten()
    loss, rows = nll_loss_forward(logarithms, labels, None, _MEAN, _IGNORED)
    error = nll_loss_backward(
        torch.ones_like(loss), logarithms, labels, None, _MEAN, _IGNORED, rows
    )
    error = cast(Tensor, log_softmax_backward(error, logarithms, -1, logarithms.dtype))
    return error.view_as(prediction)
