"""Eager learning: what is held and let go, and what lies beside training."""

import copy
import gc
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytorch_dni import DNI, DNIError, Linear_DNI, LocalLoss_DNI, synthesizer_context
from tests.support.eager_nets import agree, nets, train
from tests.support.zoo import ZOO


class Held:
    """A tensor that a graph has saved; counts those that are alive."""

    alive: set[int] = set()  # noqa: RUF012

    def __init__(self, tensor):
        self.tensor = tensor
        Held.alive.add(id(self))

    def __del__(self):
        Held.alive.discard(id(self))


class Graph_DNI(Linear_DNI):
    """Learns through autograd."""

    def taped(self):
        return None


@pytest.mark.parametrize("kind", [Linear_DNI, Graph_DNI, LocalLoss_DNI])
@pytest.mark.parametrize("autocast", [False, True])
def test_activations_of_parts_that_have_run_are_gone(kind, autocast):
    local = kind is LocalLoss_DNI

    def held(depth, eager):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(depth)]
        options = {"dni_network": kind, "context_size": 3 if local else None}
        net = DNI(nn.Sequential(*layers, nn.Linear(16, 3)), eager=eager, **options)
        x, y = torch.randn(512, 16), torch.randint(3, (512,))
        for _ in range(3):
            gc.collect()
            Held.alive.clear()
            hooks = torch.autograd.graph.saved_tensors_hooks(Held, lambda kept: kept.tensor)
            cast = torch.autocast("cpu", torch.bfloat16, enabled=autocast)
            with cast, hooks, synthesizer_context(y if local else None):
                out = net(x)
            alive = len(Held.alive)
            F.cross_entropy(out.float(), y).backward()
        return alive

    assert held(12, True) == held(4, True) < (12 if kind is Graph_DNI else 6)
    assert held(12, False) >= held(4, False) + 16


def test_checkpointed_parts_and_cuts_inside_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            x = checkpoint(lambda t: torch.relu(self.a(t)), x, use_reentrant=False)
            return self.c(torch.relu(self.b(x)))

    torch.manual_seed(0)
    network = Net()
    results = []
    for eager in (False, True):
        torch.manual_seed(3)
        net = DNI(copy.deepcopy(network), layers="b", eager=eager, example_input=torch.randn(4, 6))
        for _ in range(3):
            net(torch.ones(4, 6)).square().mean().backward()
        results.append([p.grad for p in net.parameters()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_several_backward_passes_through_one_graph_are_one_clear_error():
    net = nets("mlp")[1]
    loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()))
    loss.backward(retain_graph=True)
    with pytest.raises(DNIError, match="handed over already"):
        loss.backward()


def test_evaluation_leaves_all_alone():
    net = nets("mlp")[1]
    x = ZOO["mlp"].input()
    ZOO["mlp"].loss(net(x)).backward()
    net.eval()
    assert torch.equal(net(x), net.network(x))
    net.train()
    with torch.no_grad():
        net(x)
    assert net.stats()["1"].updates == 1
    bare = net.unwrap()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bare.modules())


@pytest.mark.parametrize("how", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_and_checkpoints_go_on(how):
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(12)]
    net = nets("mlp")[1]
    train(net, inputs[:6], ZOO["mlp"].loss)
    copied, loaded = how(net), nets("mlp")[1]
    loaded.load_state_dict(net.state_dict())
    for one in (net, copied, loaded):
        train(one, inputs[6:], ZOO["mlp"].loss)
    agree(copied, net)
    agree(loaded, net)
    assert loaded.describe() == net.describe()


def test_what_does_not_go_together():
    with pytest.raises(DNIError, match="eager takes unlock='update'"):
        DNI(ZOO["mlp"].build(), eager=True, unlock="full")
    with pytest.raises(DNIError, match="recurrent=False"):
        DNI(ZOO["lstm"].build(), eager=True)


def test_a_synthesizer_of_the_wrong_shape_leaves_no_gradient():
    net = DNI(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
        eager=True,
        dni_network=lambda name, module, output: Linear_DNI(8, 4, 5),
    )
    with pytest.raises(DNIError, match="predicts shape"):
        net(torch.randn(4, 6))
    assert all(p.grad is None for p in net.parameters())
