"""Tasks on windows: comparisons, curricula, options."""

import json

import pytest

from tasks import copy_task, episodes, recall_task, repeat_copy_task
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


def test_modes_may_run_for_the_same_time(capsys):
    assert run(recall_task, *SMALL, "--seconds", 0.3, "--mode", "bptt,dni") == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    updates = {row.split()[0]: float(row.split()[4]) for row in rows}
    assert updates["bptt"] > updates["dni"] > 0


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
