"""Synthesizers of linear layers, for vectors and for sequences of vectors."""

from typing import ClassVar

from torch import Tensor

from .._checks import check_flag
from ..errors import SynthesizerError
from ._init import init_zero_
from ._mlp import MLP
from .base import DNI_Network, Hidden


class Linear_DNI(DNI_Network):
    """An MLP with ReLU hidden layers, applied at each position of a sequence or image.

    Args:
        input_size: Features of activation and context together.
        hidden_size: Width of the hidden layers.
        output_size: Features of the activation.
        num_layers: Hidden layers; 0 is the paper's linear synthesizer.
        norm: Normalisation in the hidden layers: ``"batch"`` (statistics of the batch, the
            default: the best of the three in deep networks), ``"layer"`` or None.
        takes_error: Whether the input holds the error as well, joined after the context.

    Shape:
        ``(*, input_size)`` to ``(*, output_size)``.
    """

    features_last: ClassVar[bool] = True
    activation: ClassVar[str] = "relu"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        num_layers: int = 1,
        norm: str | None = "batch",
        takes_error: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, output_size)
        check_flag("takes_error", takes_error, SynthesizerError)
        self.takes_error = takes_error
        self.layers = MLP(input_size, hidden_size, output_size, num_layers, norm, self.activation)
        init_zero_(self.layers.last)

    def forward(self, input: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Predict ``(*, output_size)`` from ``(*, input_size)``; has no hidden state."""
        return self.layers(input), None

    def as_mlp(self) -> MLP | None:
        """Return the MLP if it computes all of :meth:`forward`; None if a subclass changes that."""
        return self.layers if type(self).forward is Linear_DNI.forward else None


class Linear_Sigmoid_DNI(Linear_DNI):
    """:class:`Linear_DNI` with sigmoid hidden layers, for networks that saturate."""

    activation: ClassVar[str] = "sigmoid"
