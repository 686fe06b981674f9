"""Parts are balanced by their cost."""

import itertools

import torch
from torch import nn

from pytorch_dni import DNI
from pytorch_dni.placement._cost import balanced


def test_parts_have_equal_costs_and_not_equal_counts_of_layers():
    widths = [8, 8, 8, 64, 64]
    pairs = itertools.pairwise(widths)
    net = DNI(
        nn.Sequential(*[nn.Linear(a, b) for a, b in pairs], nn.Linear(64, 2)),
        layers=2,
        unlock="update",
        example_input=torch.randn(5, 8),
    )
    assert [*net.interfaces] == ["2"]


def test_balanced_is_the_best_of_all_choices():
    for seed in range(40):
        drawn = torch.Generator().manual_seed(seed)
        costs = torch.randint(1, 100, (7,), generator=drawn).cumsum(0).tolist()
        total = costs.pop()
        for parts in (2, 3, 4):

            def squares(chosen, costs=costs, total=total):
                ends = [0, *[costs[i] for i in chosen], total]
                return sum((b - a) ** 2 for a, b in itertools.pairwise(ends))

            best = min(squares(c) for c in itertools.combinations(range(len(costs)), parts - 1))
            assert squares(balanced(costs, total, parts)) == best
