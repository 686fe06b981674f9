"""Cuts in space and in time, alone and together."""

import torch
from torch import nn

from pytorch_dni import DNI
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
