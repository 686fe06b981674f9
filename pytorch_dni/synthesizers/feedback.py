"""Learned feedback: a synthesizer that is linear in the error at the network's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TYPE_CHECKING

from torch import nn, Size, Tensor

from .._checks import check_flag, check_shape, check_whole
from .._gradients import parameter_grads, ParameterGrads
from ..errors import SynthesizerError
from ._error_maps import error_map, MapTape
from .base import DNI_Network, Hidden

if TYPE_CHECKING:
    from typing_extensions import Self

_MAX_PARAMETERS = 2**20


class GateTape(NamedTuple):
    """The tensors that the gated term needs in its backward pass.

    Attributes:
        trigger: The activation, ``(*, features)``.
        gate: The gate, ``(*, hidden)``.
        value: The error mapped to the hidden features, before the gate.
        map_tape: The tape of that map.
    """

    trigger: Tensor
    gate: Tensor
    value: Tensor
    map_tape: MapTape


class FeedbackTape(NamedTuple):
    """The tensors that one :meth:`Feedback_DNI.record` keeps for its backward pass."""

    direct: MapTape
    gated: GateTape | None


class Feedback_DNI(DNI_Network):
    """Predicts the gradient by a matrix from the error: the gradient of the loss at the output.

    A gradient at a cut is linear in the error, ``g = J(h)^T e`` with the Jacobian ``J`` of the
    layers after it. So there is no bias where the network is right already (``e = 0``), and the
    size of the gradient follows that of the error by itself. The matrix is regressed to the true
    gradient, as any synthesizer is; both are divided by their running root mean square.

    Vectors and sequences use one matrix at each position that the error has too. Otherwise a
    matrix maps the error of a sample to all positions of its activation: to each one where the
    matrix has at most ``max_parameters`` entries, else to a grid of cells from which the gradient
    is interpolated. From maps to maps of the same or a higher resolution it is a transposed
    convolution.

    Args:
        shape: Shape of the activation, features last: ``(batch, *positions, features)``.
        error_shape: Shape of the error, features last.
        hidden_size: Width of the gated term; None takes a quarter of the features, at least 32.
        gate: Add ``W (sigmoid(G h) * V e)``, which depends on the activation ``h``, too.
        identity: Start at the identity where the two shapes are equal, for residual networks;
            otherwise everything starts at zero.
        max_parameters: Bound of the matrix where positions differ.

    Raises:
        SynthesizerError: The two shapes have no samples in common.

    Source: direct feedback alignment (Nokland 2016) sends the output's error through fixed random
    matrices; Lansdell et al. 2020 learn them from perturbations. Here they are regressed to the
    bootstrapped gradient of Jaderberg et al. 2017.
    """

    predicts: ClassVar[str] = "feedback"
    features_last: ClassVar[bool] = True
    # A matrix that follows the gradient too fast keeps the network from adapting to it, and one
    # that is too slow lags behind (MNIST, two seeds, three rates for each network): at 3e-4 for
    # the network 3e-3 to 5e-3 were best, at 1e-3 for deeper ones 1e-2. With SGD (4 x 200, rate
    # 0.05, momentum 0.9) losses after 350 steps were 0.31, 0.22 and 0.18 at 5e-3, 1e-2 and 2e-2.
    default_lr: ClassVar[float] = 2e-2
    lr_ratio: ClassVar[float | None] = 12.0

    def __init__(
        self,
        shape: Sequence[int],
        error_shape: Sequence[int],
        hidden_size: int | None = None,
        gate: bool = False,
        identity: bool = False,
        max_parameters: int = _MAX_PARAMETERS,
    ) -> None:
        check_shape(f"{type(self).__name__}: shape", shape, SynthesizerError)
        check_shape(f"{type(self).__name__}: error_shape", error_shape, SynthesizerError)
        check_flag("gate", gate, SynthesizerError)
        check_flag("identity", identity, SynthesizerError)
        check_whole("max_parameters", max_parameters, 1, SynthesizerError)
        features = shape[-1]
        hidden = max(32, features // 4) if hidden_size is None else hidden_size
        super().__init__(features, hidden, features)
        direct = error_map(error_shape, shape, max_parameters, identity)
        if direct is None:
            raise SynthesizerError(
                f"{type(self).__name__} has no map from an error of shape {tuple(error_shape)} to "
                f"an activation of shape {tuple(shape)} (features last): both need the samples in "
                "their first dimension"
            )
        self.direct = direct
        self.gate: nn.Linear | None = None
        if gate:
            inner = error_map(error_shape, [*shape[:-1], hidden], max_parameters, False)
            assert inner is not None
            nn.init.normal_(inner.weight, std=inner.weight[0].numel() ** -0.5)
            self.inner = inner
            self.gate = nn.Linear(features, hidden)
            self.outer = nn.Linear(hidden, features, bias=False)
            nn.init.zeros_(self.outer.weight)

    def _gate_parameters(self) -> list[nn.Parameter]:
        assert self.gate is not None
        return [*self.outer.parameters(), *self.gate.parameters()]

    @classmethod
    def for_activation(
        cls,
        shape: Size,
        context_size: int | None,
        hidden_size: int | None,
        *,
        error_shape: Size | None = None,
        **params: Any,
    ) -> Self:
        """Build a synthesizer for activations of ``shape``, features last.

        Raises:
            SynthesizerError: The error is not known, or there is a context, which is of no use.
        """
        if context_size is not None:
            raise SynthesizerError(
                f"{cls.__name__} takes the error, which holds more than a context: leave "
                "context_size out, or take another dni_network"
            )
        if error_shape is None:
            raise SynthesizerError(
                f"{cls.__name__} takes the error at the network's output or at its last cut, but "
                "there is none for this cut: take unlock='backward' and more than one cut"
            )
        return cls(shape, error_shape, hidden_size, **params)

    def fits(self, error: Tensor, activation: Tensor) -> bool:
        """Return whether an error has a shape from which this activation's gradient is mapped.

        Args:
            error: The error, features last.
            activation: The activation, features last.
        """
        return self.direct.fits(error, activation.shape[:-1])

    def forward(
        self, input: Tensor, hidden: Hidden, error: Tensor | None = None
    ) -> tuple[Tensor, Hidden]:
        """Predict the gradient, in units of its running root mean square.

        Args:
            input: The activation, ``(batch, *positions, features)``.
            hidden: None.
            error: The error in units of its running root mean square, features last.

        Returns:
            The prediction, of the activation's shape, and None.
        """
        assert error is not None
        positions = input.shape[:-1]
        gradient = self.direct(error, positions)
        if self.gate is not None:
            value = self.inner(error, positions)
            gradient = gradient + self.outer(self.gate(input).sigmoid() * value)
        return gradient, None

    def record(
        self, input: Tensor, error: Tensor, unit: float, factor: float, decay: float = 0.0
    ) -> tuple[Tensor, FeedbackTape] | None:
        """Compute ``factor`` times the prediction without a graph; call under ``no_grad``.

        Args:
            input: The activation, features last.
            error: The error, features last.
            unit: Number by which the error is divided.
            factor: Factor of the prediction.
            decay: Multiple of the activation that is added to it.

        Returns:
            The prediction and the tape for :meth:`backpropagate`; None where maps are convolved
            or interpolated, which autograd does.
        """
        if type(self).forward is not Feedback_DNI.forward:
            return None
        direct = self.direct.record(error, input, unit, factor, decay * factor)
        if direct is None or self.gate is None:
            return None if direct is None else (direct[0], FeedbackTape(direct[1], None))
        gate = self.gate(input).sigmoid()
        inner = self.inner.record(error, gate, unit, 1.0)
        if inner is None:
            return None
        value, tape = inner
        gradient = direct[0] + factor * self.outer(gate * value)
        return gradient, FeedbackTape(direct[1], GateTape(input, gate, value, tape))

    def backpropagate(
        self, tape: FeedbackTape, error: Tensor, factor: float = 1.0
    ) -> tuple[None, ParameterGrads]:
        """Backpropagate through a recorded prediction; writes to no parameter's ``grad``.

        Args:
            tape: The tape of that prediction.
            error: Gradient with respect to the prediction, features last, divided by ``factor``.
            factor: Factor of that gradient.

        Returns:
            None in the place of the activation's gradient, and the gradients of the parameters.
        """
        grads = self.direct.backpropagate(tape.direct, error, factor)
        if tape.gated is None:
            return None, grads
        assert self.gate is not None
        trigger, gate, value, map_tape = tape.gated
        rows = error.reshape(-1, error.shape[-1]) * factor
        hidden = (gate * value).flatten(0, -2)
        found = [rows.t().mm(hidden)]
        delta = rows.mm(self.outer.weight).view(gate.shape)
        grads += self.inner.backpropagate(map_tape, delta * gate, 1.0)
        delta = (delta * value * gate * (1 - gate)).flatten(0, -2)
        found += [delta.t().mm(trigger.flatten(0, -2)), delta.sum(0)]
        return None, grads + parameter_grads(self._gate_parameters(), found)
