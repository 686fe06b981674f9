"""Tasks on windows: comparisons, curricula, options."""

import json

import pytest

from tasks import copy_task, episodes, recall_task, repeat_copy_task, window_training
from tasks.episodes import MODES
from tests.support.programs import episode_args, run

SMALL = ["--batch", "4", "--hidden", "8", "--window", "2", "--synthesizer-hidden", "8"]
TASKS = {"copy": copy_task, "recall": recall_task, "repeat": repeat_copy_task}


@pytest.mark.parametrize("name", TASKS)
def test_a_comparison_prints_its_table_and_keeps_its_record(name, tmp_path, capsys):
    out = tmp_path / "run"
    argv = [*SMALL, "--updates", 30, "--seed", "1,2", "--mode", ",".join(MODES), "--out", out]
    assert run(TASKS[name], *argv) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[2:]] == [*MODES]
    assert [line.split()[1] for line in printed[2:]] == ["2", "8", "all", *"222222"]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {(row["mode"], row["seed"]) for row in rows} == {(m, s) for m in MODES for s in (1, 2)}
    assert all(row["updates"] == 30 and row["seconds"] > 0 for row in rows)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len([*out.iterdir()]) == 2
    with pytest.raises(SystemExit) as ended:
        run(TASKS[name], *argv)
    assert ended.value.code == 2
    assert "holds a run already" in capsys.readouterr().err


class Clock:
    """A clock for tests, which shows the same time until it is advanced."""

    def __init__(self):
        self.seconds = 100.0

    def perf_counter(self):
        return self.seconds


def test_modes_may_run_for_the_same_time(capsys, monkeypatch):
    clock, forward = Clock(), episodes.EpisodeRun._forward
    durations = {"bptt": 1 / 1024, "dni": 4 / 1024}  # of an update

    def timed_forward(self, window):
        clock.seconds += durations[self.mode]
        return forward(self, window)

    monkeypatch.setattr(window_training, "time", clock)
    monkeypatch.setattr(episodes.EpisodeRun, "_forward", timed_forward)
    assert run(recall_task, *SMALL, "--seconds", 0.25, "--mode", "bptt,dni") == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()[2:]]
    assert {row[0]: (row[4], row[5]) for row in rows} == {
        "bptt": ("256", "0.98"),
        "dni": ("64", "3.91"),
    }


def test_the_difficulty_grows_when_the_error_is_small():
    training = episodes.EpisodeRun(
        "bptt", 1, recall_task.RecallTask(episode_args()), episode_args(lr=1e-2, hidden=16)
    )
    for _ in range(1500):
        training.update()
    assert training.difficulty > 2
    assert [difficulty for _, _, difficulty in training.history] == [
        *range(1, training.difficulty + 1)
    ]
    assert training.result()["solved"] == training.difficulty - 1


def test_wrong_options_are_errors(capsys):
    for argv, words in [
        (["--window", "0"], "--window"),
        (["--window", "2", "--mode", "bp"], "'bp'"),
        (["--window", "2", "--bound", "0"], "--bound"),
        (["--window", "2", "--seconds", "-1"], "--seconds"),
    ]:
        with pytest.raises(SystemExit) as ended:
            run(copy_task, *argv)
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
