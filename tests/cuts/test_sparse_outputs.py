"""Sparse updates: the last part may skip a step whatever the network returns."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.zoo import relu_mlp


class Pair(NamedTuple):
    first: torch.Tensor
    second: object


@dataclass
class Record:
    logits: torch.Tensor
    count: int = 3


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: (t, [t * 2], 5),
        lambda t: {"a": t, "b": None},
        lambda t: Pair(t, (t,)),
        lambda t: Record(t),
    ],
)
@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_the_last_part_skips_steps_whatever_the_network_returns(wrap, unlock):
    class ObservedLosses(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = relu_mlp(1)

        def forward(self, x):
            return wrap(self.inner(x))

    def tensors(output):
        if isinstance(output, torch.Tensor):
            return [output]
        if isinstance(output, Record):
            return [output.logits]
        children = output.values() if isinstance(output, dict) else output
        if not isinstance(output, (dict, tuple, list)):
            return []
        return [t for child in children for t in tensors(child)]

    network, x = ObservedLosses(), torch.randn(3, 6)
    net = DNI(network, update_probability=0.3, example_input=x, unlock=unlock)
    skipped = 0
    for _ in range(30):
        net.zero_grad()
        output = net(x)
        assert type(output) is type(network.eval()(x))
        network.train()
        sum(t.sum() for t in tensors(output)).backward()
        skipped += network.inner[2].weight.grad is None
    assert 10 < skipped < 30
