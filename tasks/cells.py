"""Recurrent layers by name, and their states."""

from typing import Any

from torch import nn

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def detached(state: Any) -> Any:
    """A state without its history."""
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
