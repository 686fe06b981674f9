"""Tasks: records, resumed runs, and files that must not be overwritten."""

import io
import os

import pytest
import torch

from tasks import adding_task, argmax_task, copy_task, output_folder
from tests.support.programs import assert_equal_results, fails, run

SMALL = ["--batch", "8", "--hidden", "8", "--length", "3", "--device", "cpu"]
SEQUENCES = {"copy_task": copy_task, "adding_task": adding_task, "argmax_task": argmax_task}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path):
    module, common = SEQUENCES[name], [*SMALL, "--every", 2, "--synthesizer", "linear,rnn"]
    run(module, *common, "--steps", 4, "--out", tmp_path / "a")
    run(module, "--steps", 8, "--out", tmp_path / "a", "--resume", "--device", "cpu")
    run(module, *common, "--steps", 8, "--out", tmp_path / "b")
    assert_equal_results(tmp_path / "a", tmp_path / "b")


def test_nothing_is_overwritten(tmp_path, capsys):
    folder = tmp_path / "run"
    run(copy_task, *SMALL, "--steps", 2, "--out", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    same = [*SMALL, "--steps", 4, "--out", folder]
    assert "holds a run already" in fails(capsys, copy_task, *same)
    assert "differs" in fails(capsys, copy_task, *same, "--resume", "--lr", "0.5")
    assert "another task" in fails(capsys, adding_task, "--out", folder, "--resume")
    assert "at step 2 already" in fails(
        capsys, copy_task, "--out", folder, "--resume", "--steps", 1
    )
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    buffer = io.BytesIO()
    torch.save({"step": print}, buffer)
    for content in (b"", b"nonsense", before[output_folder.CHECKPOINT][:200], buffer.getvalue()):
        (folder / output_folder.CHECKPOINT).write_bytes(content)
        message = fails(capsys, copy_task, "--out", folder, "--resume")
        assert "unreadable checkpoint" in message
        assert (folder / output_folder.CHECKPOINT).read_bytes() == content


def test_a_failed_write_keeps_the_files(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    run(copy_task, *SMALL, "--steps", 2, "--out", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in fails(capsys, copy_task, "--out", folder, "--resume", "--steps", 4)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
