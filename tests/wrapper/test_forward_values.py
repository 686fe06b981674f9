"""The wrapper does not change the values of the forward pass."""

import copy

import pytest
import torch

from pytorch_dni import DNI
from tests.support.wrapped import on, WAYS
from tests.support.zoo import ZOO


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("training", [True, False])
def test_forward_values_equal_those_of_the_bare_network(name, training, way):
    example = ZOO[name]
    bare = example.build().train(training)
    net = DNI(copy.deepcopy(bare), **on(name, way)).train(training)
    for step in range(3):
        x = example.input()
        torch.manual_seed(step)
        expected = example.loss(bare(x))
        torch.manual_seed(step)
        loss = example.loss(net(x))
        assert torch.equal(expected, loss)
        if training:
            loss.backward()
