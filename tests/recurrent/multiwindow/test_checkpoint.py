"""Copies and checkpoints with targets over several windows."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, FutureGradient, Linear_DNI
from tests.support.checkpoints import COPIES
from tests.support.multiwindow import window_loss
from tests.support.recurrent_zoo import data, detached, Loop


@pytest.mark.parametrize("target", ["bootstrap", "returns", "traces"])
@pytest.mark.parametrize("how", COPIES)
def test_copies_and_loaded_wrappers_train_alike(target, how):
    def fresh():
        torch.manual_seed(2)
        future = FutureGradient(target=target, auxiliary=0.5, windows=2)
        return DNI(
            Loop(nn.LSTMCell), future=future, dni_params={"norm": None}, dni_network=Linear_DNI
        )

    def train(net, pairs, state):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in pairs:
            out, state = net(x.float(), state)
            optimizer.zero_grad()
            window_loss(out, y.float()).backward()
            optimizer.step()
            state = detached(state)
        return state

    pairs, net = data(windows=9), fresh()
    state = train(net, pairs[:5], None)
    copied = how(net)
    loaded = fresh()
    loaded.load_state_dict(net.state_dict())
    for one in (copied, loaded):
        train(one, pairs[5:], state)
    for ours, theirs in zip(copied.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    if target == "bootstrap":
        train(net, pairs[5:], state)
        for ours, theirs in zip(copied.parameters(), net.parameters(), strict=True):
            assert torch.equal(ours, theirs)
