"""BP(lambda): 1.0 is backpropagation; the value may change while training."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.wrapped import gradients
from tests.support.zoo import ZOO


@pytest.mark.parametrize("unlock", ["backward", "update"])
@pytest.mark.parametrize("recurrent", [None, False])
@pytest.mark.parametrize("name", ZOO)
def test_lambda_one_is_backpropagation_to_the_bit(name, recurrent, unlock):
    example = ZOO[name]
    bare = example.build()
    net = DNI(copy.deepcopy(bare), bp_lambda=1.0, recurrent=recurrent, unlock=unlock)
    for step in range(3):
        x = example.input()
        loss, expected = gradients(bare, example, x, step)
        wrapped_loss, found = gradients(net, example, x, step)
        assert torch.equal(loss, wrapped_loss)
        assert {f"network.{n}" for n in expected} == set(found)
        for n, grad in expected.items():
            assert torch.equal(grad, found[f"network.{n}"]), n
    assert net.interfaces
    # No window passes its state on here, so cuts in time have no lesson.
    spatial = recurrent is False or name not in ("lstm", "gru")
    assert all((stats.updates > 0) == spatial for stats in net.stats().values())


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_lambda_may_be_a_function_of_the_step_or_be_set(unlock):
    steps = []
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    net = DNI(network, bp_lambda=steps.append, unlock=unlock)
    net.bp_lambda = lambda step: steps.append(step) or 1.0
    for _ in range(3):
        net(torch.randn(4, 3)).sum().backward()
    assert steps == [0, 1, 2]
    net.bp_lambda = 0.5
    assert net.bp_lambda == 0.5
    for wrong in (-0.1, 1.1, "1", None, True):
        with pytest.raises(ValueError, match="bp_lambda"):
            net.bp_lambda = wrong


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_all_cuts_of_a_step_get_the_same_step_number(unlock):
    steps = []
    network = nn.Sequential(*[nn.Linear(3, 3) for _ in range(5)])
    net = DNI(network, bp_lambda=lambda step: steps.append(step) or 0.0, unlock=unlock)
    net(torch.randn(4, 3)).sum().backward()
    assert set(steps) == {0}
