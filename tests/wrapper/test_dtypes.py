"""Changes of dtype move the synthesizers along."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.wrapped import assert_equal, WAYS
from tests.support.zoo import batchnorm_inplace


@pytest.mark.parametrize("way", WAYS)
def test_synthesizers_follow_the_dtype_and_stay_in_float32_below_it(way):
    net = DNI(batchnorm_inplace(), **WAYS[way])
    for dtype in (torch.float32, torch.float64, torch.float32):
        net.to(dtype)
        for _ in range(2):
            net(torch.randn(5, 6, dtype=dtype)).square().mean().backward()
        for interface in net.interfaces.values():
            assert {p.dtype for p in interface.parameters()} == {dtype}
    net.bfloat16()
    net(torch.randn(5, 6).bfloat16()).square().mean().backward()
    for interface in net.interfaces.values():
        assert {p.dtype for p in interface.parameters()} == {torch.float32}
        assert interface.moments.values.dtype == torch.float32
    assert next(net.parameters()).grad.dtype == torch.bfloat16


@pytest.mark.parametrize("way", WAYS)
def test_changes_of_dtype_keep_the_optimizers_state(way):
    def train(move):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 1))
        net = DNI(network, **WAYS[way])
        for step in range(6):
            if step == 3 and move:
                net.double().float()
            torch.manual_seed(step)
            net(torch.randn(8, 4)).square().mean().backward()
        return list(net.interfaces["0"].parameters())

    assert_equal(train(False), train(True))
