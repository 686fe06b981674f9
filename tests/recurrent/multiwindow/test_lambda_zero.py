"""With lambda 0 every target is the bootstrap."""

import copy

import pytest
import torch

from pytorch_dni import DNI, FutureGradient, Linear_DNI
from tests.support.multiwindow import window_loss
from tests.support.recurrent_zoo import data, NETWORKS


@pytest.mark.parametrize("target", [{"target": "returns", "windows": 1}, {"target": "traces"}])
@pytest.mark.parametrize("name", ["lstm", "gru cell"])
def test_lambda_zero_equals_the_bootstrap(name, target):
    build, recurrent = NETWORKS[name]
    torch.manual_seed(1)
    network = build().double()
    common = {"factor": 0.7, "bound": 0.5, "probe": 10**9}
    nets = [
        DNI(
            copy.deepcopy(network),
            recurrent=recurrent,
            future=FutureGradient(**common, **given, lambda_=0.0),
            dni_network=Linear_DNI,
            dni_params={"norm": None},
            grad_lr=1e-2,
        )
        for given in ({}, target)
    ]
    for net in nets:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        state = None
        for i, (x, y) in enumerate(data(windows=20)):
            out, state = net(x, state)
            if i % 4 == 2:
                net.end_of_sequence(torch.tensor([True, False, False, True, False]))
            optimizer.zero_grad()
            window_loss(out, y).backward()
            optimizer.step()
    for ours, theirs in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert nets[1].stats()["core.state"].cosine == pytest.approx(
        nets[0].stats()["core.state"].cosine
    )
