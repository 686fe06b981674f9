"""Recurrent synthesizers: their state, and the order of dimensions."""

import torch
from torch import nn

from pytorch_dni import DNI, RNN_DNI


def test_the_state_is_kept_between_calls():
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), dni_network=RNN_DNI, hidden_size=6)
    calls = []
    net(torch.randn(3, 4)).sum().backward()
    interface = net.interfaces["0"]
    inner = interface.synthesizer.forward
    interface.synthesizer.forward = lambda x, h: (calls.append(h), inner(x, h))[1]
    first = interface.hidden
    assert first[0].shape == (1, 3, 6)
    net(torch.randn(3, 4)).sum().backward()
    assert calls[-1] is first
    assert interface.hidden is not first
    assert not any(h.requires_grad for h in interface.hidden)
    net(torch.randn(2, 4)).sum().backward()  # Another batch size resets the state.
    assert interface.hidden[0].shape == (1, 2, 6)


def test_batch_first_is_that_of_the_module_at_the_cut():
    class Stack(nn.Module):
        def __init__(self, batch_first):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 4, batch_first=batch_first), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    for batch_first in (True, False):
        net = DNI(Stack(batch_first), layers="rnn", dni_network=RNN_DNI, hidden_size=6)
        net(torch.randn(2, 5, 3)).sum().backward()
        interface = net.interfaces["rnn"]
        assert interface.synthesizer.batch_first is batch_first
        assert interface.hidden[0].shape[1] == (2 if batch_first else 5)
