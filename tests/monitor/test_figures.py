"""Figures by flat names, and the writer that keeps them."""

import math

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError
from pytorch_dni.monitor import figures, StatsWriter, wrappers


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self):
        self.scalars = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.scalars.append((tag, scalar_value, global_step))


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def train(net, steps):
    for _ in range(steps):
        net(torch.randn(6, 4)).square().mean().backward()


def test_figures_are_those_of_stats_by_flat_names():
    net = DNI(network(), unlock="full")
    assert figures(net) == {}
    train(net, 3)
    found = figures(net, "a/b")
    expected = {}
    for direction, part in (("backward", ""), ("forward", "forward/")):
        for cut, stats in net.stats(direction).items():
            for figure in ("loss", "cosine", "norm_ratio"):
                expected[f"a/b/{part}{cut}/{figure}"] = getattr(stats, figure)
    assert found == expected
    assert len(found) == 12


def test_wrappers_inside_a_module_have_their_names():
    both = nn.ModuleDict({"first": DNI(network()), "second": DNI(network()), "bare": network()})
    assert [*wrappers(both)] == ["first", "second"]
    train(both["first"], 2)
    found = figures(both)
    assert {name.split("/")[1] for name in found} == {"first"}
    assert "dni/first/1/cosine" in found


def test_figures_that_are_not_finite_are_left_out():
    net = DNI(network(), unlock="update")
    (net(torch.randn(6, 4)) * 0).sum().backward()  # the true gradient is zero: no cosine
    assert all(math.isnan(stats.cosine) for stats in net.stats().values())
    assert figures(net) == {}


def test_the_writer_gets_one_step_of_so_many():
    net, kept = DNI(network()), Kept()
    writer = StatsWriter(net, kept, every=2, prefix="x")
    for step in range(5):
        train(net, 1)
        writer.step(10 * step if step == 3 else None)
    assert {number for _, _, number in kept.scalars} == {2, 30}
    assert {tag for tag, _, _ in kept.scalars} == {*figures(net, "x")}


def test_wrong_arguments_are_errors():
    kept = Kept()
    for arguments, words in [
        ((network(), kept), "holds no wrapped network"),
        ((3, kept), "holds no wrapped network"),
        ((DNI(network()), []), "add_scalar"),
        ((DNI(network()), kept, 0), "every must be a positive integer"),
    ]:
        with pytest.raises(DNIError, match=words):
            StatsWriter(*arguments)
