"""Recurrent layers by name, and their states."""

from typing import Any

from torch import nn

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def detach_state(state: Any) -> Any:
    """Return a state without its graph: a tuple of tensors for an LSTM, else a tensor."""
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
