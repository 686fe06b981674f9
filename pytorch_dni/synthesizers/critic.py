"""A synthesizer that is a critic: it predicts the future loss, whose gradient is the message."""

from __future__ import annotations

from typing import Any, ClassVar, TYPE_CHECKING

from torch import Size, Tensor

from .._checks import check_choice, check_number, check_whole
from ..errors import SynthesizerError
from ._init import init_zero_
from ._mlp import MLP
from .base import DNI_Network, Hidden

if TYPE_CHECKING:
    from typing_extensions import Self


class Critic_DNI(DNI_Network):
    """Predicts from the state of a recurrent net the loss of later windows.

    The gradient of the predicted loss by the state is the synthetic gradient. The critic learns
    from losses that were observed (:meth:`DNI.observe`), not from its own predictions.

    Args:
        input_size: Features of state and context together.
        hidden_size: Width of the hidden layers.
        output_size: Features of the state.
        num_layers: Hidden layers.
        norm: ``"layer"`` or None, in the hidden layers. Batch statistics are not offered: the loss
            of one sample would depend on the state of another.
        horizon: Of how many later windows the losses are predicted.
        discount: Factor of the loss for each further window.

    Shape:
        ``(batch, input_size)`` to ``(batch, 1)``, in units of the observed losses' running root
        mean square.

    Source: Czarnecki et al. 2017, section 4: critics.
    """

    predicts: ClassVar[str] = "return"
    features_last: ClassVar[bool] = True
    default_lr: ClassVar[float] = 3e-3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        num_layers: int = 1,
        norm: str | None = "layer",
        horizon: int = 8,
        discount: float = 0.9,
    ) -> None:
        super().__init__(input_size, hidden_size, output_size)
        check_choice("a critic's norm", norm, ("layer", None), SynthesizerError)
        check_whole("a critic's horizon", horizon, 1, SynthesizerError)
        check_number("a critic's discount", discount, 0, 1, SynthesizerError)
        self.horizon, self.discount = horizon, discount
        self.layers = MLP(input_size, hidden_size, 1, num_layers, norm)
        init_zero_(self.layers.last)

    @classmethod
    def for_activation(
        cls, shape: Size, context_size: int | None, hidden_size: int | None, **params: Any
    ) -> Self:
        """Build a critic; ``hidden_size=None`` takes the width of the state, at least 32."""
        return super().for_activation(
            shape,
            context_size,
            max(32, shape[-1]) if hidden_size is None else hidden_size,
            **params,
        )

    def forward(self, input: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Predict the future loss, ``(batch, 1)``."""
        return self.layers(input), None
