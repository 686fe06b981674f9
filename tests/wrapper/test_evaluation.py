"""In evaluation and without gradients nothing is attached, stored or trained."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_dni import DNI
from tests.support.hooks import forward_hooks
from tests.support.wrapped import WAYS
from tests.support.zoo import mlp, Transformer, ZOO


@pytest.mark.parametrize("way", WAYS)
def test_eval_removes_the_hooks_and_train_puts_them_back(way):
    net = DNI(mlp(), **WAYS[way])
    net(torch.randn(4, 6)).sum().backward()
    count = len(forward_hooks(net.network))
    # To take the error, the network itself has two hooks as well.
    assert count == len(net.interfaces) + 2 * (way != "update")
    assert len(net.interfaces) == 2
    net.eval()
    assert not forward_hooks(net.network)
    net(torch.randn(4, 6)).sum().backward()
    assert {stats.updates for stats in net.stats().values()} == {1}
    assert net._rooms.learner.steps == 1
    net.train()
    assert len(forward_hooks(net.network)) == count
    net(torch.randn(4, 6)).sum().backward()
    # The second step is not exact and teaches nothing.
    assert {s.updates for s in net.stats().values()} == {1 if way == "exact every" else 2}
    assert net._rooms.learner.steps == 2


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("way", WAYS)
def test_without_gradients_nothing_is_attached_or_trained(scope, way):
    net = DNI(mlp(), **WAYS[way])
    with scope():
        net(torch.randn(4, 6))
    assert not net.interfaces
    net(torch.randn(4, 6)).sum().backward()
    with scope():
        net(torch.randn(4, 6))
    assert {s.updates for s in net.stats().values()} == {1}


@pytest.mark.parametrize("way", WAYS)
def test_eval_of_the_network_itself_is_respected(way):
    network = mlp()
    net = DNI(network, **WAYS[way])
    network.eval()
    net(torch.randn(4, 6)).sum().backward()
    assert not net.interfaces
    network.train()
    net(torch.randn(4, 6)).sum().backward()
    assert net.interfaces


@pytest.mark.parametrize("way", WAYS)
def test_a_network_wrapped_in_eval_learns_after_train(way):
    net = DNI(mlp().eval(), **WAYS[way])
    assert not net.training
    net(torch.randn(4, 6)).sum().backward()
    assert not net.interfaces
    net.train()
    net(torch.randn(4, 6)).sum().backward()
    assert net.interfaces


class Operators(TorchDispatchMode):
    """Records the names of the operators that run while it is active."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("way", WAYS)
def test_transformers_keep_their_fast_path_in_eval(way):
    network = Transformer().eval()
    x = ZOO["transformer"].input()
    with torch.no_grad():
        expected = network(x)
    net = DNI(network.train(), **WAYS[way])
    net(x).square().mean().backward()
    assert net.interfaces
    with torch.no_grad(), Operators() as operators:
        assert torch.equal(net.eval()(x), expected)
    # One kernel computes a whole layer; PyTorch takes it only where no module has a hook.
    assert operators.names.count("aten::_transformer_encoder_layer_fwd") == 2
