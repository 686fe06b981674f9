"""Programs on windows: a run that was interrupted and resumed equals one that was not."""

import json

import pytest
import torch

from tasks import (
    char_language_model,
    copy_task,
    episode_training,
    episodes,
    language_training,
    output_folder,
    recall_task,
    repeat_copy_task,
    window_training,
    word_language_model,
)
from tests.support.programs import fails, run

SMALL = ["--batch", 4, "--hidden", 8, "--window", 2, "--synthesizer-hidden", 8, "--every", 20]
SMALL += ["--device", "cpu"]


def assert_equal(ours, theirs):
    """Check that two states are equal to the bit, except for times."""
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds", "history"}:
            assert_equal(ours[name], theirs[name])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            assert_equal(*pair)
    else:
        assert ours == theirs or ours != ours


def results(folder):
    checkpoint = torch.load(folder / output_folder.CHECKPOINT, weights_only=True)
    rows = (folder / output_folder.METRICS).read_text().splitlines()
    rows = [{**json.loads(row), "seconds": None} for row in rows]
    return {name: checkpoint[name] for name in ("options", "step", "runs")}, rows


def check(module, common, tmp_path, capsys, monkeypatch, mode, seeds=1):
    """Interrupt a run in its last mode, after the first checkpoint, resume it, and compare."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    window = ["--window", 2]  # without it, copy_task is another program
    assert run(module, *common, "--steps", 31, "--out", whole) == 0
    train_step, count = window_training.WindowRun.train_step, [0]

    def interrupted(self):
        count[0] += self.mode == mode
        if count[0] == 25 * seeds:
            raise KeyboardInterrupt
        train_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(window_training.WindowRun, "train_step", interrupted)
        assert run(module, *common, "--steps", 31, "--out", broken) == 130
    assert "--resume" in capsys.readouterr().err
    again = [*window, "--resume", "--out", broken, "--device", "cpu"]
    if "--data" in common:
        again += ["--data", common[common.index("--data") + 1]]
    assert 0 < results(broken)[0]["step"] < 25
    assert run(module, *again) == 0
    assert_equal(results(broken), results(whole))
    assert "at step 31 already" in fails(capsys, module, *again, "--steps", 20)
    assert "--lr differs" in fails(capsys, module, *again, "--lr", 0.5)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    for program in (episode_training.EpisodeProgram, language_training.LanguageProgram):
        monkeypatch.setattr(program, "steps_per_block", 10)
        monkeypatch.setattr(program, "draw", lambda self: b"")  # it takes half a second


@pytest.mark.parametrize("mode", sorted({*episodes.MODES} - {*episodes.WITH_RECORDED_WINDOWS}))
def test_modes_of_episodes(mode, tmp_path, capsys, monkeypatch):
    check(recall_task, [*SMALL, "--mode", mode], tmp_path, capsys, monkeypatch, mode)


@pytest.mark.parametrize("mode", episodes.WITH_RECORDED_WINDOWS)
def test_modes_with_recorded_windows_say_that_they_differ(mode, tmp_path, capsys):
    argv = ["--resume", "--steps", 30, "--out", tmp_path, "--device", "cpu"]
    run(recall_task, *SMALL, "--mode", f"bp,{mode}", "--steps", 20, "--out", tmp_path)
    assert "not to the same end" not in capsys.readouterr().out
    assert run(recall_task, *argv) == 0
    note = "not to the same end, because checkpoints hold no windows"
    assert f"{note}: {mode}\n" in capsys.readouterr().out


@pytest.mark.parametrize("module", [copy_task, repeat_copy_task])
def test_tasks_of_episodes(module, tmp_path, capsys, monkeypatch):
    common = [*SMALL, "--mode", "bp,dni", "--seed", "1,2", "--cell", "gru"]
    check(module, common, tmp_path, capsys, monkeypatch, "dni", seeds=2)


@pytest.mark.parametrize("module", [char_language_model, word_language_model])
def test_language_models(module, corpus, tmp_path, capsys, monkeypatch):
    common = [*SMALL, "--data", corpus]
    check(module, common, tmp_path / "runs", capsys, monkeypatch, "dni")


def test_a_run_that_ended_goes_on_for_more_steps(tmp_path):
    common = [*SMALL, "--mode", "bp,dni"]
    run(recall_task, *common, "--steps", 20, "--out", tmp_path / "a")
    run(recall_task, "--resume", "--out", tmp_path / "a", "--steps", 40, "--device", "cpu")
    run(recall_task, *common, "--steps", 40, "--out", tmp_path / "b")
    assert_equal(results(tmp_path / "a"), results(tmp_path / "b"))


def test_a_checkpoint_of_another_program_is_refused(tmp_path, capsys):
    run(recall_task, *SMALL, "--mode", "bp", "--steps", 2, "--out", tmp_path)
    other = ["--resume", "--out", tmp_path]
    assert "another task" in fails(capsys, repeat_copy_task, *other)
    assert "another task" in fails(capsys, copy_task, *other)
