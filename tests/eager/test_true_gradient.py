"""Eager learning computes true gradients only where they are needed."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, LocalError_DNI, LocalLoss_DNI
from tests.support.eager_nets import train


class CountBackward(torch.autograd.Function):
    """The identity, which counts its backward passes."""

    count = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        CountBackward.count += 1
        return grad


class Counted(nn.Module):
    def forward(self, x):
        return CountBackward.apply(x)


@pytest.mark.parametrize(
    ("kind", "expected"), [(None, 20), (LocalError_DNI, 20), (LocalLoss_DNI, 9)]
)
def test_local_losses_compute_the_true_gradient_only_when_they_measure_it(kind, expected):
    # Local losses measure the true gradient in their first eight updates, then in one of eight.
    options = {} if kind is None else {"dni_network": kind, "context_size": 3}
    network = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), Counted(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    inputs = [torch.randn(5, 4) for _ in range(20)]
    net = DNI(network, layers=["1", "4"], eager=True, example_input=inputs[0], **options)
    CountBackward.count = 0
    train(net, inputs, lambda out: out.square().mean(), torch.randint(3, (5,)) if options else None)
    assert CountBackward.count == expected
    assert {stats.updates for stats in net.stats().values()} == {20}
