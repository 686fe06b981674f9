"""The context of a window belongs to the state that the window leaves."""

import pytest
import torch
from torch import nn

from pytorch_dni import ContextError, DNI, FutureGradient, synthesizer_context
from tests.support.recurrent_zoo import data, Sequence


def test_synthesizers_use_the_context_of_the_window_that_left_the_state():
    class Recording(nn.Module):
        context_dim = 3

        def forward(self, trigger, context):
            seen.append((trigger.clone(), context.argmax(1)))
            return torch.zeros_like(trigger)

    seen = []
    net = DNI(
        Sequence(nn.GRU),
        dni_network=lambda *_: Recording(),
        future=FutureGradient(factor=1, probe=99),
    )
    state = None
    for i, (x, _) in enumerate(data(3)):
        with synthesizer_context(torch.full((5,), i)):
            out, state = net(x.float(), state)
        out.sum().backward()
    labels = [context[0].item() for _, context in seen]
    # Window 1 teaches at the state that window 0 left. A prediction at the state that window 2
    # leaves is sent into window 2, which teaches at the state that window 1 left.
    assert labels == [0, 2, 1]
    with pytest.raises(ContextError, match=r"core\.state"):
        net(data(1)[0][0].float(), state)


def test_a_context_without_context_size_is_an_error():
    net = DNI(Sequence(nn.GRU))
    with synthesizer_context(torch.zeros(5)), pytest.raises(ContextError, match="takes none"):
        net(torch.randn(3, 5, 3))
