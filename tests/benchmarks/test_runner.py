"""The runner prints tables, writes figures, and continues when one benchmark cannot run."""

import json

import pytest

from benchmarks import calls, choices, compiled, overhead
from benchmarks.__main__ import main
from tasks.errors import TaskError


def test_the_runner_prints_a_table_and_writes_figures(tmp_path, capsys, monkeypatch):
    quick = {"by hand": lambda: None, "DNI": lambda: None, "backpropagation": lambda: None}
    monkeypatch.setattr(overhead, "training_steps", lambda device: quick)
    assert main(["overhead", "--json", str(tmp_path / "figures.json")]) == 0
    assert "over by hand" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "figures.json").read_text())["overhead"]) == set(quick)


def test_choices_without_data_are_one_clear_error(monkeypatch, capsys):
    monkeypatch.delenv("DNI_DATA", raising=False)
    with pytest.raises(SystemExit):
        main(["choices"])
    assert "where is MNIST?" in capsys.readouterr().err


def test_all_run_when_one_cannot(monkeypatch, tmp_path, capsys):
    def lacks(device):
        raise TaskError("no data")

    monkeypatch.setattr("benchmarks.__main__.BENCHMARKS", {"choices": choices, "calls": calls})
    monkeypatch.setattr(choices, "run", lacks)
    monkeypatch.setattr(calls, "run", lambda device: ("a table", [1]))
    assert main(["--json", str(tmp_path / "figures.json")]) == 1
    printed = capsys.readouterr()
    assert "a table" in printed.out
    assert "choices: not run: no data" in printed.err
    assert json.loads((tmp_path / "figures.json").read_text())["calls"] == [1]
    with pytest.raises(SystemExit):
        main(["choices"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(TaskError, match="compiler"):
        compiled.run("cpu")
