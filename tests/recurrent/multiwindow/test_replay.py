"""Running a window again has no effect that the user can see."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, FutureGradient, Linear_DNI
from tests.support.recurrent_zoo import data, Sequence


class Noisy(Sequence):
    """A network with dropout, and with buffers that change in every forward pass."""

    def __init__(self):
        super().__init__(nn.GRU)
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, x, state=None):
        return super().forward(self.drop(self.norm(x.flatten(0, 1)).view_as(x)), state)


@pytest.mark.parametrize("target", ["returns", "traces"])
def test_replay_changes_no_output_no_buffer_and_no_random_number(target):
    torch.manual_seed(1)
    bare = Noisy()
    net = DNI(
        copy.deepcopy(bare),
        future=FutureGradient(factor=1.0, target=target, windows=2),
        dni_network=Linear_DNI,
        dni_params={"norm": None},
    )
    outs = []
    for one in (bare, net):
        torch.manual_seed(7)
        state, own = None, []
        for x, _ in data(windows=6):
            out, state = one(x.float(), state)
            out.square().mean().backward()
            state = state.detach()
            own.append(out.detach())
        outs.append(own)
    for ours, theirs in zip(*outs, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(net.network.buffers(), bare.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    # The replay of a window uses the random numbers of its first run.
    horizon = net._rooms.in_time._target
    record = horizon._record
    assert torch.equal(
        horizon.replay(record).last["core.state"], record.left["core.state"].state.state
    )
