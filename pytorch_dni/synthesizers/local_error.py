"""Learned feedback from the error of a local head, which is known before the loss is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TYPE_CHECKING

from torch import nn, Size, Tensor
from torch.nn import functional as F

from .._checks import check_flag, check_shape, check_whole
from .._gradients import ParameterGrads
from ..errors import SynthesizerError
from .feedback import Feedback_DNI
from .local_loss import LocalLoss_DNI

if TYPE_CHECKING:
    from typing_extensions import Self


class LocalError_DNI(LocalLoss_DNI):
    """Predicts the gradient by a matrix from the error of a local head.

    A small head on the activation predicts the context (labels, or regression targets), and is
    trained by its own loss, as in :class:`LocalLoss_DNI`. The gradient of that loss by the head's
    prediction, its error (``softmax(head(h)) - y`` for labels), stands for the error at the
    network's output. A :class:`Feedback_DNI`, regressed to the true gradient, maps it to the
    activation, where a local loss would take the transposed head. So parts need not wait for the
    layers after them, and aim at the loss of the network rather than at their own.

    Args:
        shape: Shape of the activation, features last: ``(batch, *positions, features)``.
        context_size: Classes, or features of the regression target.
        hidden_size: Width of the head's hidden layers, if it has any, and of the gated term.
        loss: ``loss(prediction, target) -> scalar``, as in :class:`LocalLoss_DNI`.
        num_layers: Hidden layers of the head; 0 makes it linear.
        norm: Normalisation in the hidden layers of the head, as in :class:`Linear_DNI`.
        pool: Maps are averaged to at most ``pool`` by ``pool`` cells before the head; None applies
            the head at every position, for targets given at every position.
        gate: Whether the feedback has a gated term, as in :class:`Feedback_DNI`.

    Source: a local head as in Belilovsky et al. 2019, section 3; its error takes the place of the
    output's in direct feedback alignment (Nokland 2016), with a matrix regressed to the
    bootstrapped gradient of Jaderberg et al. 2017.
    """

    predicts: ClassVar[str] = "local error"

    def __init__(
        self,
        shape: Sequence[int],
        context_size: int,
        hidden_size: int | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
        num_layers: int = 0,
        norm: str | None = "batch",
        pool: int | None = 4,
        gate: bool = False,
    ) -> None:
        check_shape("LocalError_DNI: shape", shape, SynthesizerError)
        check_whole("context_size", context_size, 1, SynthesizerError)
        check_flag("gate", gate, SynthesizerError)
        if pool is not None:
            check_whole("pool", pool, 1, SynthesizerError)
        features = shape[-1]
        if len(shape) == 4 and pool is not None:
            features *= min(pool, shape[1]) * min(pool, shape[2])
        hidden = max(32, shape[-1] // 4) if hidden_size is None else hidden_size
        super().__init__(features, hidden, context_size, loss, num_layers, norm, pool)
        pooled = len(shape) == 4 and pool is not None
        self._leading = 1 if pooled else len(shape) - 1
        error_shape = [*shape[: self._leading], context_size]
        self.feedback = Feedback_DNI(shape, error_shape, hidden, gate)

    @classmethod
    def for_activation(
        cls, shape: Size, context_size: int | None, hidden_size: int | None, **params: Any
    ) -> Self:
        """Build for an activation of ``shape``, features last; needs ``context_size``."""
        cls._check_context(context_size)
        assert context_size is not None
        return cls(shape, context_size, hidden_size, **params)

    def trained(self) -> list[tuple[nn.Module, float]]:
        """Return head and feedback, each with its own default learning rate."""
        return [(self.head, self.default_lr), (self.feedback, self.feedback.default_lr)]

    def local_error(self, activation: Tensor, target: Tensor) -> tuple[Tensor, ParameterGrads]:
        """Compute the head's error and the gradients of its parameters; call under ``no_grad``.

        Args:
            activation: Features last: ``(batch, *positions, features)``.
            target: The context, as in :meth:`LocalLoss_DNI.loss`.

        Returns:
            The error: ``(batch, context_size)`` for pooled maps, otherwise
            ``(batch, *positions, context_size)``, equal at positions that the target lacks; and
            the gradients, which are not written to ``grad``.
        """
        target = self.at_positions(activation, target)
        prediction, tape = self.head.record(self._rows(activation, target))
        error = self._error(prediction, target)
        _, grads = self.head.backpropagate(tape, error)
        positions = activation.shape[: self._leading]
        missing = len(positions) + 1 - error.dim()
        if missing:
            first = error.shape[:-1] == positions[: error.dim() - 1]
            places = [error.dim() - 1] * missing if first else [0] * missing
            for place in places:
                error = error.unsqueeze(place)
            error = error.expand(*positions, error.shape[-1])
        return error, grads

    def loss_gradient(
        self, activation: Tensor, target: Tensor, gain: Tensor
    ) -> tuple[Tensor, ParameterGrads]:
        """Raise: the gradient is predicted from :meth:`local_error`."""
        raise TypeError(f"{type(self).__name__} predicts from local_error, not from a loss")
