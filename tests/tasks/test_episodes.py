"""Tasks on windows: comparisons, curricula, options."""

import json

import pytest

from tasks import (
    copy_task,
    episodes,
    output_folder,
    recall_task,
    repeat_copy_task,
    window_training,
)
from tasks.episodes import MODES
from tests.support.programs import episode_args, fails, run, table_rows

SMALL = ["--batch", "4", "--hidden", "8", "--window", "2", "--synthesizer-hidden", "8"]
TASKS = {"copy": copy_task, "recall": recall_task, "repeat": repeat_copy_task}


@pytest.mark.parametrize("name", TASKS)
def test_a_comparison_prints_its_table_and_keeps_its_record(name, tmp_path, capsys):
    out = tmp_path / "run"
    argv = [*SMALL, "--steps", 30, "--seed", "1,2", "--mode", ",".join(MODES), "--out", out]
    assert run(TASKS[name], *argv) == 0
    printed = table_rows(capsys.readouterr().out)
    assert [row[0] for row in printed] == [*MODES]
    assert [row[1] for row in printed] == ["2", "8", "all", *"222222"]
    assert [row[5] for row in printed] == ["30"] * len(MODES)
    rows = [json.loads(line) for line in (out / output_folder.METRICS).read_text().splitlines()]
    assert {(row["mode"], row["seed"]) for row in rows} == {(m, s) for m in MODES for s in (1, 2)}
    assert {(row["step"], row["length"]) for row in rows} == {(0, 1)}
    assert (out / output_folder.CURVES).read_bytes().startswith(b"\x89PNG")
    assert len([*out.iterdir()]) == 3
    assert "holds a run already" in fails(capsys, TASKS[name], *argv)


class Clock:
    """A clock for tests, which shows the same time until it is advanced."""

    def __init__(self):
        self.seconds = 100.0

    def perf_counter(self):
        return self.seconds


def test_modes_may_run_for_the_same_time(capsys, monkeypatch):
    clock, forward = Clock(), episodes.EpisodeRun._forward
    durations = {"bp": 1 / 1024, "dni": 4 / 1024}  # of a step

    def timed_forward(self, window):
        clock.seconds += durations[self.mode]
        return forward(self, window)

    monkeypatch.setattr(window_training, "time", clock)
    monkeypatch.setattr(episodes.EpisodeRun, "_forward", timed_forward)
    assert run(recall_task, *SMALL, "--seconds", 0.25, "--mode", "bp,dni") == 0
    rows = table_rows(capsys.readouterr().out)
    assert {row[0]: (row[4], row[5]) for row in rows} == {
        "bp": ("256", "0.98"),
        "dni": ("64", "3.91"),
    }


def test_the_difficulty_grows_when_the_error_is_small():
    training = episodes.EpisodeRun(
        "bp", 1, recall_task.RecallTask(episode_args()), episode_args(lr=1e-2, hidden=16)
    )
    for _ in range(1500):
        training.train_step()
    assert training.difficulty > 2
    assert [difficulty for _, _, difficulty in training.history] == [
        *range(1, training.difficulty + 1)
    ]
    assert training.result()["solved"] == training.difficulty - 1


def test_wrong_options_are_errors(capsys):
    for argv, words in [
        (["--window", "0"], "--window"),
        (["--window", "2", "--mode", "cnn"], "'cnn'"),
        (["--window", "2", "--bound", "0"], "--bound"),
        (["--window", "2", "--seconds", "-1"], "--seconds"),
        (["--window", "2", "--seconds", "1", "--steps", "1"], "exclude each other"),
        (["--window", "2", "--forget-bias", "nan"], "--forget-bias"),
        (["--window", "2", "--lambda", "1.5"], "--lambda"),
    ]:
        assert words in fails(capsys, copy_task, *argv)
