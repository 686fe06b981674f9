"""``layers=N``: parts of about equal cost, at places that everything goes through; describe()."""

import copy
import itertools

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError, SelectionError
from pytorch_dni._balance import balanced
from tests.support.zoo import ZOO


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.narrow(torch.relu(self.wide(self.norm(x))))


def residual(depth=8):
    blocks = nn.Sequential(*[Block(16) for _ in range(depth)])
    return nn.Sequential(nn.Linear(4, 16), blocks, nn.Linear(16, 3))


@pytest.mark.parametrize(("parts", "cuts"), [(2, ["1.3"]), (4, ["1.1", "1.3", "1.5"])])
@pytest.mark.parametrize("example", [False, True])
def test_residual_networks_are_cut_behind_blocks(parts, cuts, example):
    x = torch.randn(6, 4)
    network = residual()
    modes = {name: module.training for name, module in network.named_modules()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    net = DNI(network, layers=parts, example_input=x if example else None)
    if not example:
        assert not net.interfaces
        net(x).sum().backward()
    assert [*net.interfaces] == cuts
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all((p.grad is None) == example for p in network.parameters())


def test_the_first_step_learns_already():
    torch.manual_seed(0)
    network = residual()
    nets = [DNI(copy.deepcopy(network), layers=layers) for layers in (4, ["1.1", "1.3", "1.5"])]
    x = torch.randn(6, 4)
    for net in nets:
        torch.manual_seed(3)
        for _ in range(3):
            net(x).square().mean().backward()
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert nets[0].stats()["1.3"].updates == 3


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("name", ZOO)
def test_places_found_do_separate(name, parts):
    """Or it is said how many there are."""
    network = ZOO[name].build()
    torch.manual_seed(0)
    try:
        net = DNI(network, layers=parts, eager=True, recurrent=False)
        for _ in range(3):
            ZOO[name].loss(net(ZOO[name].input())).backward()
    except SelectionError as error:
        assert "parts at most" in str(error)  # noqa: PT017
        assert name in {"mlp": 4, "shared": 2, "branches": 3, "dropout": 3, "lstm": 3, "gru": 3,
                        "residual": 3, "transformer": 0, "checkpointed": 0}  # fmt: skip
    else:
        assert len(net.interfaces) == parts - 1
        assert all(stats.updates == 3 for stats in net.stats().values())


def test_an_even_split_of_a_plain_network_is_behind_activations():
    layers = [m for _ in range(8) for m in (nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU())]
    net = DNI(nn.Sequential(*layers), layers=4, example_input=torch.randn(5, 16))
    assert [*net.interfaces] == ["5", "11", "17"]


def test_costs_are_balanced_and_not_layers_counted():
    widths = [8, 8, 8, 64, 64]
    pairs = itertools.pairwise(widths)
    net = DNI(
        nn.Sequential(*[nn.Linear(a, b) for a, b in pairs], nn.Linear(64, 2)),
        layers=2,
        example_input=torch.randn(5, 8),
    )
    assert [*net.interfaces] == ["2"]


def test_balanced_against_all_choices():
    from itertools import combinations

    for seed in range(40):
        drawn = torch.Generator().manual_seed(seed)
        costs = torch.randint(1, 100, (7,), generator=drawn).cumsum(0).tolist()
        total = costs.pop()
        for parts in (2, 3, 4):

            def squares(chosen, costs=costs, total=total):
                ends = [0, *[costs[i] for i in chosen], total]
                return sum((b - a) ** 2 for a, b in itertools.pairwise(ends))

            best = min(squares(c) for c in combinations(range(len(costs)), parts - 1))
            assert squares(balanced(costs, total, parts)) == best


@pytest.mark.parametrize("layers", [0, 1, -3])
def test_a_number_that_is_none_of_parts(layers):
    with pytest.raises(SelectionError, match="into how many parts"):
        DNI(residual(), layers=layers)


def test_more_parts_than_there_are_places():
    network = residual(2)
    with pytest.raises(SelectionError, match=r"4 parts at most, at \['0', '1.0', '1"):
        DNI(network, layers=9, example_input=torch.randn(6, 4))
    net = DNI(network, layers=9)
    with pytest.raises(SelectionError, match="4 parts at most"):
        net(torch.randn(6, 4))
    assert all(p.grad is None for p in network.parameters())
    net.unwrap()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_describe():
    net = DNI(residual(4), layers=3, hidden_size=10)
    with pytest.raises(DNIError, match="after a training forward pass"):
        net.describe()
    x = torch.randn(6, 4)
    net(x).sum().backward()
    lines = net.describe().splitlines()
    assert [len(line.split("  ")) > 4 for line in lines] == [True] * 5
    rows = [[cell for cell in line.split("  ") if cell] for line in lines[2:]]
    total = sum(p.numel() for p in net.network.parameters())
    assert sum(int(row[2].replace(",", "")) for row in rows) == total
    cuts = [row[4].strip() for row in rows]
    assert cuts == [*net.interfaces, "-"]
    size = sum(p.numel() for p in net.interfaces[cuts[0]].synthesizer.parameters())
    assert rows[0][5].strip() == f"{size:,}"
    # Layer norm and the two linear layers of a block, and the block's own sum is no leaf's.
    of_block = 6 * (16 + 32 + 16) * 4
    assert int(rows[-1][3].replace(",", "")) in (6 * 3 * 4, of_block + 6 * 3 * 4)


def test_describe_tells_of_every_wrapper():
    x = torch.randn(5, 6)
    for options in ({}, {"unlock": "full"}, {"layers": ["0", "2"]}):
        net = DNI(ZOO["mlp"].build(), example_input=x, **options)
        assert len(net.describe().splitlines()) == 5
    whole = DNI(nn.Linear(6, 2), recursive=False)
    whole(x).sum().backward()
    assert "(output)" in whole.describe()
    recurrent = DNI(ZOO["lstm"].build())
    assert "part" in recurrent.describe()
