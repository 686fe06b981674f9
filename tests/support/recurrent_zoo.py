"""Networks with states, for the tests of temporal interfaces."""

import torch
from torch import nn

from pytorch_dni import DNI, StateSpec


class Sequence(nn.Module):
    """A recurrent module of PyTorch with two layers, and a head."""

    def __init__(self, kind):
        super().__init__()
        self.core, self.head = kind(3, 4, num_layers=2), nn.Linear(4, 2)

    def forward(self, x, state=None):
        out, state = self.core(x, state)
        return self.head(out), state


class Loop(nn.Module):
    """A recurrent cell in a Python loop."""

    def __init__(self, kind):
        super().__init__()
        self.core, self.head = kind(3, 4), nn.Linear(4, 2)

    def forward(self, x, state=None):
        outs = []
        for x_t in x:
            state = self.core(x_t, state)
            outs.append(self.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outs), state


class Memory(nn.Module):
    """A user's module. Its state is a mapping that holds a matrix, passed as a keyword."""

    def __init__(self):
        super().__init__()
        self.write, self.mix = nn.Linear(3, 6), nn.Linear(4, 4)

    def forward(self, x, *, memory=None):
        if memory is None:
            memory = {"slots": x.new_zeros(x.shape[0], 2, 3), "trace": [x.new_zeros(x.shape[0], 4)]}
        slots = torch.tanh(0.9 * memory["slots"] + self.write(x).unflatten(1, (2, 3)))
        trace = torch.tanh(self.mix(memory["trace"][0]) + slots.flatten(1)[:, :4])
        return {"read": trace, "memory": {"slots": slots, "trace": [trace]}}


class Own(nn.Module):
    """A network around the user's module."""

    def __init__(self):
        super().__init__()
        self.core, self.head = Memory(), nn.Linear(4, 2)

    def forward(self, x, state=None):
        outs = []
        for x_t in x:
            out = self.core(x_t, memory=state)
            state = out["memory"]
            outs.append(self.head(out["read"]))
        return torch.stack(outs), state


OWN = {"core": StateSpec(keyword="memory", result="memory")}
NETWORKS = {
    "lstm": (lambda: Sequence(nn.LSTM), True),
    "gru": (lambda: Sequence(nn.GRU), True),
    "rnn": (lambda: Sequence(nn.RNN), True),
    "lstm cell": (lambda: Loop(nn.LSTMCell), True),
    "gru cell": (lambda: Loop(nn.GRUCell), True),
    "own": (Own, OWN),
}


def tensors(state):
    """Return the tensors of a state in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    children = state.values() if isinstance(state, dict) else state
    return [t for child in children for t in tensors(child)]


def rebuilt(state, new):
    """Return a state of the same structure with the tensors of the iterator ``new``."""
    if isinstance(state, torch.Tensor):
        return next(new)
    if isinstance(state, dict):
        return {key: rebuilt(child, new) for key, child in state.items()}
    return type(state)(rebuilt(child, new) for child in state)


def detached(state):
    return rebuilt(state, iter([t.detach() for t in tensors(state)]))


def data(windows=4, steps=3, batch=5):
    """Return inputs and targets of windows."""
    torch.manual_seed(3)
    x = torch.randn(windows, steps, batch, 3, dtype=torch.float64)
    return list(zip(x, torch.randn(windows, steps, batch, 2, dtype=torch.float64), strict=True))


def side_by_side(state, name):
    """Return all tensors of a state as one row for each sample."""
    rows = []
    for t in tensors(state):
        by_sample = t.transpose(0, 1) if name in ("lstm", "gru", "rnn") else t
        rows.append(by_sample.reshape(by_sample.shape[0], -1))
    return torch.cat(rows, 1)


def trained_on_windows(make=lambda: Sequence(nn.GRU)):
    """Return a wrapped recurrent net after three windows."""
    torch.manual_seed(0)
    net = DNI(make().double())
    state = None
    for x, y in data(windows=3):
        out, state = net(x, state)
        (out - y).square().mean().backward()
    return net
