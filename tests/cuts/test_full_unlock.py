"""The full unlock: parts run on synthetic activations and learn from synthetic gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import BidirectionalInterface, DNI, DNIError
from tests.support.zoo import relu_mlp, ZOO


def test_later_parts_run_on_the_prediction_alone():
    """The prediction is zero at first."""
    network, x = relu_mlp(1), torch.randn(4, 6)
    net = DNI(network, unlock="full", example_input=x)
    assert isinstance(net.interfaces["1"], BidirectionalInterface)
    seen = []
    network[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    for _ in range(3):
        net(x).square().sum().backward()
    assert not seen[0].any()
    assert seen[2].any()
    assert not torch.equal(seen[2], F.relu(network[0](x)))
    bare = copy.deepcopy(network).eval()
    assert torch.equal(net.eval()(x), bare(x))
    assert net.stats()["1"].updates == net.stats("forward")["1"].updates == 3
    with pytest.raises(DNIError, match="direction"):
        net.stats("sideways")


def test_cuts_may_be_placed_in_evaluation():
    net = DNI(relu_mlp().eval(), unlock="full", example_input=torch.randn(4, 6))
    assert [*net.interfaces] == ["1", "3", "5"]
    net.train()(torch.randn(4, 6)).sum().backward()
    assert all(stats.updates == 1 for stats in net.stats("forward").values())


def test_both_predictions_are_learned():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    net = DNI(network, unlock="full")
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    weight = torch.randn(6, 2)
    losses = []
    for _ in range(600):
        x = torch.randn(64, 6)
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), x @ weight)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert net.stats("forward")["1"].cosine > 0.95
    x = torch.randn(500, 6)
    assert F.mse_loss(net.eval()(x), x @ weight) < 0.3 * (x @ weight).square().mean()
    assert sum(losses[-50:]) < 0.2 * sum(losses[:50])


FLOATS = [name for name in ZOO if ZOO[name].input().is_floating_point()]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("sparse", [1.0, 0.5])
def test_every_architecture_trains(name, sparse):
    example = ZOO[name]
    net = DNI(example.build(), unlock="full", update_probability=sparse)
    for _ in range(4 if sparse == 1 else 12):
        net.zero_grad()
        example.loss(net(example.input())).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert all(stats.updates > 0 for stats in net.stats("forward").values())
    example.loss(net.eval()(example.input()))


def test_inputs_must_be_floating_point():
    net = DNI(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.Linear(3, 2)), unlock="full")
    with pytest.raises(DNIError, match="floating-point"):
        net(torch.zeros(2, 3, dtype=torch.int64))
    mlp = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    inner = nn.Sequential(nn.Embedding(5, 4), DNI(mlp, unlock="full"))
    inner(torch.zeros(2, dtype=torch.int64)).sum().backward()
    assert inner[1].interfaces
