"""Measurements: times, live bytes, operators, and whole tables."""

import json

import torch

from benchmarks import (
    calls,
    choices,
    compiled,
    deep_networks,
    memory,
    memory_tracker,
    speed,
    training_methods,
    widths,
)
from benchmarks.__main__ import main
from benchmarks.timing import time_steps
from tests.support.data import needs_data


def test_times_are_relative_to_the_first():
    calls = []
    found = time_steps({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 3, 1)
    assert calls == (["a"] * 3 + ["b"] * 3) * 3
    assert found["a"].ratio == 1
    assert found["b"].low <= found["b"].ratio <= found["b"].high


def test_another_clock_can_be_given():
    ticks = iter(range(100))
    found = time_steps({"a": lambda: None, "b": lambda: next(ticks)}, 2, 1, 0, lambda: next(ticks))
    assert found["a"].milliseconds == 1000
    assert found["b"].ratio == 2


@needs_data
def test_all_choices_are_measured():
    _, figures = choices.run("cpu", steps=2)
    assert set(figures) == {"backpropagation", *choices.CHOICES}
    assert all(len(accuracies) == len(choices.SEEDS) for accuracies in figures.values())


def test_eager_memory_does_not_grow_with_depth(monkeypatch, tmp_path, capsys):
    small = {"small": deep_networks.mlp(16, 64, 4)}
    monkeypatch.setattr(deep_networks, "NETWORK_TYPES", small)
    monkeypatch.setattr(memory, "DEPTHS", (4, 8))
    run = memory.run
    monkeypatch.setattr(memory, "run", lambda device: run(device, (4, 8), blocks=1))
    argv = ["memory", "--json", str(tmp_path / "figures.json"), "--plot", str(tmp_path)]
    assert main(argv) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())["memory"]
    bytes_ = {(row["method"], row["blocks"]): row["activation_bytes"] for row in figures}
    assert {way for way, _ in bytes_} == {*training_methods.METHODS}
    # A block keeps the inputs of its norm and of its linear layers, and no more.
    one = 64 * 16 * 4
    grows = bytes_["backpropagation", 8] - bytes_["backpropagation", 4]
    assert 12 * one <= grows < 14 * one
    for way in ("eager", "local"):
        assert bytes_[way, 8] - bytes_[way, 4] < one / 4
    assert bytes_["default", 8] >= bytes_["backpropagation", 8]
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert "activations, MiB" in capsys.readouterr().out


def test_live_bytes_are_counted():
    network = torch.nn.Module()
    network.weight = torch.nn.Parameter(torch.zeros(8, 8))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def step():
        a = torch.ones(1000)
        b = a * 2
        del a
        c = b + 1
        del b, c
        (network.weight * torch.ones(8, 8)).sum().backward()
        optimizer.step()

    alone, together = memory_tracker.peak_memory(step, network, [], [optimizer])
    assert 8000 <= alone < 8000 + 100
    assert together >= alone


def test_all_widths_are_measured():
    text, figures = widths.run("cpu", widths=(8, 16), blocks=1)
    assert [row["width"] for row in figures] == [8] * 5 + [16] * 5
    assert "eager, hidden 64" in text


def test_operators_of_a_step_are_counted():
    _, figures = calls.run("cpu", depth=3, width=8)
    found = {row["method"]: row["operators"] for row in figures}
    assert set(found) == {*training_methods.METHODS}
    assert found["backpropagation"] < found["checkpoint, root"] < found["eager"]
    with calls.OperatorCounter() as counted:
        torch.ones(3).add(1).mul_(2)
    assert counted.count == 3


def test_compiled_modules_are_measured(monkeypatch):
    monkeypatch.setattr(deep_networks, "NETWORK_TYPES", {"small": deep_networks.mlp(8, 16, 4)})
    backends, original = [], torch.compile

    def recorded(function, **options):
        backends.append(options["backend"])
        return original(function, **options)

    monkeypatch.setattr(torch, "compile", recorded)
    text, figures = compiled.run("cpu", depth=2, blocks=1, backend="eager")
    assert backends == ["eager"] * (1 + 2 + 2)  # A network, and two blocks for each other way.
    assert [row["method"] for row in figures] == ["backpropagation", "default", "eager"]
    assert "compiled over plain" in text


def test_speed_is_measured_with_all_threads_and_with_one():
    before = torch.get_num_threads()
    _, figures = speed.run("cpu", depth=3, width=8, blocks=1)
    assert {row["method"] for row in figures} == {*training_methods.METHODS, "eager, by hand"}
    assert {row["threads"] for row in figures} == {before, 1}
    assert torch.get_num_threads() == before
