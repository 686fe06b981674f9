"""Cuts in space and in time, alone and together."""

import torch
from torch import nn

from pytorch_dni import DNI, Feedback_DNI, Linear_DNI
from tests.support.recurrent_zoo import detached, Sequence


def test_cuts_in_space_and_time_may_be_combined():
    x = torch.randn(3, 5, 3)

    def keys(**options):
        net = DNI(Sequence(nn.LSTM), unlock="update", **options)
        state = None
        for _ in range(2):
            out, state = net(x, state)
            out.square().sum().backward()
            state = detached(state)  # Time may not be cut.
        assert all(s.updates for s in net.stats().values())
        return [*net.interfaces]

    assert keys() == ["core.state"]
    assert keys(layers="core") == ["core"]
    assert keys(layers="core", recurrent=True) == ["core", "core.state"]
    net = DNI(nn.LSTM(3, 4))
    net(x, net(x)[1])[0].sum().backward()
    assert [*net.interfaces] == ["state"]


class WithStem(Sequence):
    """A layer before the recurrent ones."""

    def __init__(self):
        super().__init__(nn.LSTM)
        self.stem = nn.Linear(3, 3)

    def forward(self, x, state=None):
        return super().forward(torch.relu(self.stem(x)), state)


def test_feedback_in_space_and_predictions_in_time_may_be_combined():
    net, state = DNI(WithStem(), layers=["stem", "core"], recurrent=True), None
    for _ in range(4):
        out, state = net(torch.randn(3, 5, 3), state)
        out.square().sum().backward()
    kinds = {name: type(i.synthesizer) for name, i in net.interfaces.items()}
    # The network also returns its state, so the error is the gradient at the last cut, the core.
    assert kinds == {"stem": Feedback_DNI, "core.state": Linear_DNI}
    assert {name: stats.updates for name, stats in net.stats().items()} == {
        "stem": 4,
        "core.state": 3,
    }
