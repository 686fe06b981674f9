"""The benchmarks: what they time does the same arithmetic, and their tables are whole."""

import copy
import json
import os

import pytest
import torch
from torch.nn import functional as F

from benchmarks import (
    calls,
    choices,
    compiled,
    deep_networks,
    eager_by_hand,
    memory,
    memory_tracker,
    speed,
    training_methods,
    widths,
    window_results,
    windows,
)
from benchmarks.__main__ import main
from benchmarks.overhead import by_hand, network
from benchmarks.timing import time_steps
from pytorch_dni import DNI, synthesizer_context
from tasks.errors import TaskError


def test_the_hand_written_loop_learns_the_same():
    torch.manual_seed(0)
    bare = network(inputs=12).double()
    inner = copy.deepcopy(bare)
    opt = torch.optim.SGD(inner.parameters(), lr=0.1)
    net = DNI(inner, optim=opt, context_size=10, example_input=torch.randn(4, 12).double())
    # Adam makes steps of rounding errors
    hand = by_hand(bare, net, torch.optim.SGD(bare.parameters(), lr=0.1))
    for _ in range(20):
        x, y = torch.randn(32, 12).double(), torch.randint(0, 10, (32,))
        hand.step(x, y)
        opt.zero_grad()
        with synthesizer_context(y):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
    for a, b in zip(bare.parameters(), inner.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    for interface, synthesizer in zip(net.interfaces.values(), hand.synthesizers, strict=True):
        for a, b in zip(interface.parameters(), synthesizer.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


def test_the_hand_written_eager_loop_learns_the_same():
    torch.manual_seed(0)
    bare = deep_networks.mlp(12, 16, 6).build(3).double()
    inner = copy.deepcopy(bare)
    opt = torch.optim.SGD(inner.parameters(), lr=0.1)
    example = torch.randn(16, 12).double()
    net = DNI(inner, layers="blocks.*", hidden_size=6, eager=True, example_input=example)
    hand = eager_by_hand.by_hand(bare, net, torch.optim.SGD(bare.parameters(), lr=0.1))
    for _ in range(20):
        x, y = torch.randn(16, 12).double(), torch.randint(0, 10, (16,))
        hand.step(x, y)
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    for a, b in zip(bare.parameters(), inner.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_timings_are_relative_to_the_first():
    calls = []
    found = time_steps({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 3, 1)
    assert calls == (["a"] * 3 + ["b"] * 3) * 3
    assert found["a"].ratio == 1
    assert found["b"].low <= found["b"].ratio <= found["b"].high


def test_the_runner_prints_a_table_and_writes_figures(tmp_path, capsys, monkeypatch):
    from benchmarks import overhead

    quick = {"by hand": lambda: None, "DNI": lambda: None, "backpropagation": lambda: None}
    monkeypatch.setattr(overhead, "training_steps", lambda device: quick)
    assert main(["overhead", "--json", str(tmp_path / "figures.json")]) == 0
    assert "over by hand" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "figures.json").read_text())["overhead"]) == set(quick)


@pytest.mark.skipif(not os.environ.get("DNI_DATA"), reason="DNI_DATA names no folder with MNIST")
def test_choices_are_compared_with_each_other():
    _, figures = choices.run("cpu", steps=2)
    assert set(figures) == {"backpropagation", *choices.CHOICES}
    assert all(len(accuracies) == len(choices.SEEDS) for accuracies in figures.values())


def test_choices_without_data_are_one_clear_error(monkeypatch, capsys):
    monkeypatch.delenv("DNI_DATA", raising=False)
    with pytest.raises(SystemExit):
        main(["choices"])
    assert "where is MNIST?" in capsys.readouterr().err


def test_the_study_of_windows(tmp_path, capsys):
    file = tmp_path / "rows.json"
    argv = ["--task", "copy,recall", "--window", "2", "--seeds", "2", "--updates", "30"]
    windows.main([*argv, "--json", str(file)])
    told = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[:3] for line in told] == [
        [task, "2", mode] for task in ("copy", "recall") for mode in ("bptt", "bptt4", "dni")
    ]
    rows = json.loads(file.read_text())
    assert len(rows) == 12
    assert all(row["updates"] == 30 for row in rows)


def test_figures_of_the_study():
    assert window_results.confidence_interval([3, 3, 3]) == (3, 3)
    low, high = window_results.confidence_interval([0, 1] * 20)
    assert 0.3 < low < 0.5 < high < 0.7
    row = {"solved": 2, "history": [[0, 0.0, 1], [50, 2.0, 2], [90, 5.0, 3]]}
    assert [window_results.result(row, t) for t in (0.0, 1.9, 2.0, 4.9, 9.0)] == [0, 0, 1, 1, 2]
    assert window_results.result(row) == 2
    text = {"history": [[5, 1.0, 4.5], [9, 2.0, 3.5]]}
    assert [window_results.result(text, t) for t in (1.0, 1.9, 2.0)] == [4.5, 4.5, 3.5]


def test_every_mode_is_told_at_its_best_learning_rate(tmp_path, capsys):
    def row(mode, lr, seed, solved):
        history = [[0, 0.0, 1], [9, 1.0, solved + 1]]
        return {"task": "copy", "window": 3, "mode": mode, "lr": lr, "seed": seed,
                "solved": solved, "updates": 9, "seconds": 1.0, "history": history}  # fmt: skip

    rows = [row("bptt", 1e-3, s, 1) for s in (1, 2)] + [row("bptt", 1e-2, s, s) for s in (1, 2)]
    rows += [row("dni", 1e-3, s, 3) for s in (1, 2)] + [row("dni", 1e-2, s, 2) for s in (1, 2)]
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, part in zip(files, (rows[:3], rows[3:]), strict=True):
        file.write_text(json.dumps(part))
    windows.main(["--read", *map(str, files), "--plot", str(tmp_path / "plot.png")])
    told = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[2:5] for line in told] == [["bptt", "0.01", "1.50"], ["dni", "0.001", "3.00"]]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_memory_over_depth(monkeypatch, tmp_path, capsys):
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
    # A block keeps what its norm takes, what its linear layers take, and no more.
    one = 64 * 16 * 4
    grows = bytes_["backpropagation", 8] - bytes_["backpropagation", 4]
    assert 12 * one <= grows < 14 * one
    for way in ("eager", "local"):
        assert bytes_[way, 8] - bytes_[way, 4] < one / 4
    assert bytes_["default", 8] >= bytes_["backpropagation", 8]
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert "activations, MiB" in capsys.readouterr().out


def test_live_bytes_by_hand():
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


def test_synthesizers_over_width():
    text, figures = widths.run("cpu", widths=(8, 16), blocks=1)
    assert [row["width"] for row in figures] == [8] * 5 + [16] * 5
    assert "eager, hidden 64" in text


def test_operators_in_a_step():
    _, figures = calls.run("cpu", depth=3, width=8)
    found = {row["method"]: row["operators"] for row in figures}
    assert set(found) == {*training_methods.METHODS}
    assert found["backpropagation"] < found["checkpoint, root"] < found["eager"]
    with calls.OperatorCounter() as counted:
        torch.ones(3).add(1).mul_(2)
    assert counted.count == 3


def test_step_times_with_compile(monkeypatch):
    monkeypatch.setattr(deep_networks, "NETWORK_TYPES", {"small": deep_networks.mlp(8, 16, 4)})
    backends, own = [], torch.compile

    def noted(function, **options):
        backends.append(options["backend"])
        return own(function, **options)

    monkeypatch.setattr(torch, "compile", noted)
    text, figures = compiled.run("cpu", depth=2, blocks=1, backend="eager")
    assert backends == ["eager"] * (1 + 2 + 2)  # a network, and two blocks each
    assert [row["method"] for row in figures] == ["backpropagation", "default", "eager"]
    assert "compiled over plain" in text


def test_all_run_though_one_cannot(monkeypatch, tmp_path, capsys):
    def lacks(device):
        raise TaskError("no data")

    monkeypatch.setattr("benchmarks.__main__.BENCHMARKS", {"choices": choices, "calls": calls})
    monkeypatch.setattr(choices, "run", lacks)
    monkeypatch.setattr(calls, "run", lambda device: ("a table", [1]))
    assert main(["--json", str(tmp_path / "figures.json")]) == 1
    told = capsys.readouterr()
    assert "a table" in told.out
    assert "choices: not run: no data" in told.err
    assert json.loads((tmp_path / "figures.json").read_text())["calls"] == [1]
    with pytest.raises(SystemExit):
        main(["choices"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(TaskError, match="compiler"):
        compiled.run("cpu")


def test_speed_by_threads():
    before = torch.get_num_threads()
    _, figures = speed.run("cpu", depth=3, width=8, blocks=1)
    assert {row["method"] for row in figures} == {*training_methods.METHODS, "eager, by hand"}
    assert {row["threads"] for row in figures} == {before, 1}
    assert torch.get_num_threads() == before
