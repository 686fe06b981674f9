"""In evaluation and without gradients nothing is attached, stored or trained."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_dni import DNI
from tests.support.hooks import forward_hooks
from tests.support.zoo import mlp, Transformer, ZOO


def test_eval_removes_the_hooks_and_train_puts_them_back():
    net = DNI(mlp())
    net(torch.randn(4, 6)).sum().backward()
    count = len(forward_hooks(net.network))
    assert count == len(net.interfaces) == 2
    net.eval()
    assert not forward_hooks(net.network)
    net(torch.randn(4, 6)).sum().backward()
    assert next(iter(net.stats().values())).updates == 1
    net.train()
    assert len(forward_hooks(net.network)) == count
    net(torch.randn(4, 6)).sum().backward()
    assert next(iter(net.stats().values())).updates == 2


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_attached_or_trained(scope):
    net = DNI(mlp())
    with scope():
        net(torch.randn(4, 6))
    assert not net.interfaces
    net(torch.randn(4, 6)).sum().backward()
    with scope():
        net(torch.randn(4, 6))
    assert {s.updates for s in net.stats().values()} == {1}


def test_eval_of_the_network_itself_is_respected():
    network = mlp()
    net = DNI(network)
    network.eval()
    net(torch.randn(4, 6)).sum().backward()
    assert not net.interfaces
    network.train()
    net(torch.randn(4, 6)).sum().backward()
    assert net.interfaces


def test_a_network_wrapped_in_eval_learns_after_train():
    net = DNI(mlp().eval())
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


def test_transformers_keep_their_fast_path_in_eval():
    network = Transformer().eval()
    x = ZOO["transformer"].input()
    with torch.no_grad():
        expected = network(x)
    net = DNI(network.train())
    net(x).square().mean().backward()
    assert net.interfaces
    with torch.no_grad(), Operators() as operators:
        assert torch.equal(net.eval()(x), expected)
    # One kernel computes a whole layer; PyTorch takes it only where no module has a hook.
    assert operators.names.count("aten::_transformer_encoder_layer_fwd") == 2
