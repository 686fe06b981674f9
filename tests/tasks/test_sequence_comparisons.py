"""Tasks on sequences: comparisons of all modes, and their tables."""

import json
import subprocess
import sys

import pytest
import torch

from tasks import adding_task, argmax_task, copy_task, output_folder
from tasks.comparison import Comparison
from tasks.modes import Configuration, DEFAULT_MODES, MODES
from tests.support.programs import run, sequence_task, table_rows

SMALL = ["--batch", "8", "--hidden", "8", "--length", "3", "--device", "cpu"]
SEQUENCES = {"copy_task": copy_task, "adding_task": adding_task, "argmax_task": argmax_task}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_comparison_prints_its_table_and_keeps_its_record(name, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(SEQUENCES[name], *SMALL, "--steps", 6, "--every", 3, "--out", folder) == 0
    out = capsys.readouterr().out
    assert [row[0] for row in table_rows(out)] == [*DEFAULT_MODES]
    assert "step/bp" in out
    count = len(DEFAULT_MODES)
    rows = [json.loads(line) for line in (folder / output_folder.METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [3] * count + [6] * count
    assert all(0 <= row["test_error"] <= 1 for row in rows)
    checkpoint = torch.load(folder / output_folder.CHECKPOINT, weights_only=True)
    assert checkpoint["step"] == 6
    assert (folder / output_folder.CURVES).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [output_folder.METRICS, output_folder.CHECKPOINT, output_folder.CURVES]
    )


def test_each_synthesizer_is_a_row(capsys):
    names = "linear,linear-sigmoid,rnn,local"
    assert run(argmax_task, *SMALL, "--steps", 2, "--mode", "cdni,bp", "--synthesizer", names) == 0
    out = capsys.readouterr().out
    for row in ("cdni linear ", "cdni linear-sigmoid", "cdni rnn", "local", "bp"):
        assert f"\n{row}" in out


def test_a_task_runs_as_a_program(tmp_path):
    command = [sys.executable, "-m", "tasks.copy_task", *SMALL, "--steps", "3", "--mode", "bp,cdni"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cdni" in done.stdout


def test_all_modes_start_with_the_same_weights():
    task = sequence_task(copy_task.CopyTask, 3)
    recipes = [Configuration(mode, 1e-3) for mode in MODES]
    comparison = Comparison(task, recipes, [1, 2], torch.device("cpu"))
    weights = [next(run.model.parameters()) for run in comparison.runs]
    count = len(MODES)
    assert all(torch.equal(w, weights[0]) for w in weights[:count])
    assert all(torch.equal(w, weights[count]) for w in weights[count:])
    assert not torch.equal(weights[0], weights[count])
