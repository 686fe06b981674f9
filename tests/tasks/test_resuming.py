"""Tasks: records, resumed runs, and files that must not be overwritten."""

import io
import os

import pytest
import torch

from tasks import adding_task, argmax_task, comparison, copy_task, output_folder, training_run
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


def test_a_learning_rate_that_decays_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    common = [*SMALL, "--every", 2, "--mode", "bp,feedback", "--steps", 8, "--decay"]
    run(copy_task, *common, "--out", tmp_path / "b")
    train = comparison.Comparison.train
    half = lambda runs, total, *rest: train(runs, total // 2, *rest)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(comparison.Comparison, "train", half)
        run(copy_task, *common, "--out", tmp_path / "a")
    message = fails(capsys, copy_task, "--resume", "--steps", 12, "--out", tmp_path / "a")
    assert "cannot be continued to another number of steps" in message
    run(copy_task, "--resume", "--out", tmp_path / "a", "--device", "cpu")
    assert_equal_results(tmp_path / "a", tmp_path / "b")


def test_the_learning_rate_decays_along_half_a_cosine():
    factors = [training_run.learning_rate_factor(4)(step) for step in range(6)]
    expected = [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0, 0]
    torch.testing.assert_close(torch.tensor(factors), torch.tensor(expected))
    assert training_run.learning_rate_factor(None)(100) == 1


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
