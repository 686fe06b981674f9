"""The benchmark of per-example gradients: all ways compute the same, and figures are complete."""

import sys
from contextlib import ExitStack

import pytest
import torch

from benchmarks import individual
from benchmarks.individual_peers import other_ways

SIZES = {"perceptrons": [(5, 4, 2)], "images": (3, 8), "sequences": (3, 4)}


@pytest.fixture
def without_libraries(monkeypatch):
    for name in ("opacus.grad_sample", "backpack"):
        monkeypatch.setitem(sys.modules, name, None)


def test_figures_are_complete(without_libraries):
    threads = torch.get_num_threads()
    table, figures = individual.run("cpu", **SIZES, blocks=1, length=1)
    ways = {name: [f["way"] for f in figures if f["network"] == name] for name in ("CNN",)}
    assert {"gradients", "norms, no grad", "inner products", "vmap(grad)", "loop"} <= {*ways["CNN"]}
    assert {figure["network"] for figure in figures} == {"(5, 4, 2)", "CNN", "transformer"}
    assert all(figure["ratio"] > 0 and figure["low"] <= figure["high"] for figure in figures)
    assert figures[0]["ratio"] == figures[0]["memory"] == 1
    assert table.count("\n") == len(figures) + 1
    assert "opacus" not in table
    assert torch.get_num_threads() == threads


def test_all_ways_compute_the_same(without_libraries):
    case = individual.perceptron(5, 4, 2, "cpu")
    found = {
        name: step() for name, step in other_ways(case.network, case.input, case.target).items()
    }
    found["vmap(grad)"] = [*found["vmap(grad)"].values()]
    with ExitStack() as stack:
        ways = individual.own_ways(case, stack)
        norm, gram = ways["norms"](), ways["inner products, no grad"]()
    for gradients in found.values():
        rows = torch.cat([gradient.flatten(1) for gradient in gradients], 1)
        torch.testing.assert_close(norm, rows.norm(dim=1))
        torch.testing.assert_close(gram, rows @ rows.T, atol=1e-5, rtol=1e-4)
