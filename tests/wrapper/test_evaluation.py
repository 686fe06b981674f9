"""In evaluation and without gradients nothing is attached, stored or trained."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.zoo import mlp, Transformer, ZOO


def hooks(network):
    return [h for m in network.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]


def test_eval_carries_no_hooks_and_train_puts_them_back():
    net = DNI(mlp())
    net(torch.randn(4, 6)).sum().backward()
    count = len(hooks(net.network))
    assert count == len(net.interfaces) == 2
    net.eval()
    assert not hooks(net.network)
    net(torch.randn(4, 6)).sum().backward()
    assert next(iter(net.stats().values())).updates == 1
    net.train()
    assert len(hooks(net.network)) == count
    net(torch.randn(4, 6)).sum().backward()
    assert next(iter(net.stats().values())).updates == 2


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_happens(scope):
    net = DNI(mlp())
    with scope():
        net(torch.randn(4, 6))
    assert not net.interfaces
    net(torch.randn(4, 6)).sum().backward()
    with scope():
        net(torch.randn(4, 6))
    assert {s.updates for s in net.stats().values()} == {1}


def test_a_network_put_in_eval_behind_the_wrappers_back():
    network = mlp()
    net = DNI(network)
    network.eval()
    net(torch.randn(4, 6)).sum().backward()
    assert not net.interfaces
    network.train()
    net(torch.randn(4, 6)).sum().backward()
    assert net.interfaces


def test_a_network_wrapped_in_eval_learns_once_it_trains():
    net = DNI(mlp().eval())
    assert not net.training
    net(torch.randn(4, 6)).sum().backward()
    assert not net.interfaces
    net.train()
    net(torch.randn(4, 6)).sum().backward()
    assert net.interfaces


def test_transformers_keep_their_fast_path_in_eval():
    network = Transformer().eval()
    x = ZOO["transformer"].input()
    with torch.no_grad():
        expected = network(x)
        net = DNI(network.train()).eval()
        assert torch.equal(net(x), expected)


def test_example_input_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.random.get_rng_state()
    net = DNI(network, example_input=torch.randn(4, 6, generator=torch.Generator()))
    assert torch.equal(state, torch.random.get_rng_state())
    assert list(net.interfaces) == ["2"]
    assert [m.training for m in network] == [True, False, True, True]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_example_input_as_arguments_and_keywords():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x, *, scale):
            return self.b(self.a(x) * scale)

    example = {"x": torch.randn(2, 3), "scale": 2.0}
    assert list(DNI(Two(), example_input=example).interfaces) == ["a"]

    class Pair(Two):
        def forward(self, x, scale):
            return super().forward(x, scale=scale)

    assert list(DNI(Pair(), example_input=(torch.randn(2, 3), 2.0)).interfaces) == ["a"]
