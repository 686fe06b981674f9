"""``layers=N``: N parts of about equal cost, at places that separate the network."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, SelectionError
from tests.support.hooks import forward_hooks
from tests.support.wrapped import residual
from tests.support.zoo import ZOO


@pytest.mark.parametrize(("parts", "cuts"), [(2, ["1.3"]), (4, ["1.1", "1.3", "1.5"])])
@pytest.mark.parametrize("example", [False, True])
def test_residual_networks_are_cut_after_blocks(parts, cuts, example):
    x = torch.randn(6, 4)
    network = residual()
    modes = {name: module.training for name, module in network.named_modules()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    net = DNI(network, layers=parts, unlock="update", example_input=x if example else None)
    if not example:
        assert not net.interfaces
        net(x).sum().backward()
    assert [*net.interfaces] == cuts
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all((p.grad is None) == example for p in network.parameters())


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_training_starts_in_the_first_step(unlock):
    torch.manual_seed(0)
    network = residual()
    nets = [
        DNI(copy.deepcopy(network), layers=layers, unlock=unlock)
        for layers in (4, ["1.1", "1.3", "1.5"])
    ]
    x = torch.randn(6, 4)
    for net in nets:
        torch.manual_seed(3)
        for _ in range(3):
            net(x).square().mean().backward()
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert nets[0].stats()["1.3"].updates == 3


# Each network's greatest number of parts.
MOST_PARTS = {
    "mlp": 3,
    "batchnorm_inplace": 3,
    "dropout": 2,
    "functional": 3,
    "residual": 2,
    "cnn": 3,
    "conv1d": 3,
    "lstm": 4,
    "gru": 4,
    "transformer": 6,
    "shared": 2,
    "branches": 2,
    "checkpointed": 4,
}


@pytest.mark.parametrize(
    ("name", "parts"), [(name, parts) for name in ZOO for parts in range(2, MOST_PARTS[name] + 2)]
)
def test_places_separate_the_network_or_an_error_counts_them(name, parts):
    torch.manual_seed(0)
    example, most = ZOO[name], MOST_PARTS[name]
    net = DNI(example.build(), layers=parts, eager=True, recurrent=False)
    if parts > most:
        with pytest.raises(SelectionError, match=f"can be cut into {most} parts at most, at "):
            net(example.input())
        assert not net.interfaces
        return
    for _ in range(3):
        example.loss(net(example.input())).backward()
    assert len(net.interfaces) == parts - 1
    assert all(stats.updates == 3 for stats in net.stats().values())


def test_plain_networks_are_cut_after_activations():
    layers = [m for _ in range(8) for m in (nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU())]
    net = DNI(nn.Sequential(*layers), layers=4, unlock="update", example_input=torch.randn(5, 16))
    assert [*net.interfaces] == ["5", "11", "17"]


@pytest.mark.parametrize("layers", [0, 1, -3])
def test_fewer_than_two_parts_are_an_error(layers):
    with pytest.raises(SelectionError, match="into how many parts"):
        DNI(residual(), layers=layers)


def test_more_parts_than_places_are_an_error():
    network = residual(2)
    with pytest.raises(SelectionError, match=r"4 parts at most, at \['0', '1.0', '1"):
        DNI(network, layers=9, example_input=torch.randn(6, 4))
    net = DNI(network, layers=9)
    with pytest.raises(SelectionError, match="4 parts at most"):
        net(torch.randn(6, 4))
    assert all(p.grad is None for p in network.parameters())
    net.unwrap()
    assert not forward_hooks(network)
