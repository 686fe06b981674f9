"""A recurrent synthesizer."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn, Tensor

from .._checks import check_choice, check_flag, check_whole
from ..errors import SynthesizerError
from ._init import init_zero_
from .base import DNI_Network, Hidden

_CELLS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
}


class RNN_DNI(DNI_Network):
    """A recurrent network over positions, whose state is kept from one call to the next.

    Args:
        input_size: Features of activation and context together.
        hidden_size: Width of the recurrent layers.
        output_size: Features of the activation.
        num_layers: How many recurrent layers are stacked.
        cell: ``"lstm"``, ``"gru"``, ``"tanh"`` or ``"relu"``.
        batch_first: Whether sequences have the shape (batch, time, features); otherwise they are
            (time, batch, features). The wrapper takes it from the module at the cut.
        takes_error: Whether the input holds the error as well, joined after the context.

    Shape:
        ``(batch, input_size)`` is one step; ``(batch, time, input_size)`` a sequence; further
        positions are treated as one long sequence.
    """

    features_last: ClassVar[bool] = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        num_layers: int = 1,
        cell: str = "lstm",
        batch_first: bool = True,
        takes_error: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, output_size)
        for name, flag in (("batch_first", batch_first), ("takes_error", takes_error)):
            check_flag(name, flag, SynthesizerError)
        check_whole("num_layers", num_layers, 1, SynthesizerError)
        check_choice("cell", cell, [*_CELLS], SynthesizerError)
        self.takes_error = takes_error
        kind, options = _CELLS[cell]
        self.batch_first = batch_first
        self.rnn = kind(input_size, hidden_size, num_layers, batch_first=True, **options)
        self.output = nn.Linear(hidden_size, output_size)
        init_zero_(self.output)

    def forward(self, input: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Predict along the sequence; a ``hidden`` of another batch size is ignored."""
        time_major = input.dim() == 3 and not self.batch_first
        steps = input.transpose(0, 1) if time_major else input
        if not steps.numel():  # an empty batch: PyTorch's recurrent layers refuse it
            return self.output.weight.new_zeros(*input.shape[:-1], self.output_size), hidden
        sequence = steps.reshape(steps.shape[0], -1, steps.shape[-1])
        states, hidden = self.rnn(sequence, self._fitting(hidden, len(sequence)))
        predicted = self.output(states).reshape(*steps.shape[:-1], self.output_size)
        return (predicted.transpose(0, 1) if time_major else predicted), hidden

    @staticmethod
    def _fitting(hidden: Hidden, batch: int) -> Hidden:
        state = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden if state is not None and state.shape[1] == batch else None
