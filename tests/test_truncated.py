"""The tasks on windows: data, curriculum, tables, and what each mode sees."""

import itertools
import json

import pytest
import torch

from tasks import copy_task, episodes, recall_task, repeat_copy_task
from tasks.episodes import MODES

SMALL = ["--batch", "4", "--hidden", "8", "--window", "2", "--synthesizer-hidden", "8"]
TASKS = {"copy": copy_task, "recall": recall_task, "repeat": repeat_copy_task}


def run(module, *argv):
    return module.main([str(argument) for argument in argv])


def args(**values):
    given = {"bits": 3, "repeats": 3, "start": 1, "cell": "lstm", "hidden": 8, "batch": 4}
    given |= {"window": 2, "lr": 1e-3, "forget_bias": 1.0, "clip": 1.0, "grad_lr": None}
    given |= {"synthesizer_hidden": 8, "factor": 1.0, "bound": 1.0}
    given |= {"lambda_": 0.9, "auxiliary": 0.1}
    return type("Args", (), given | values)


@pytest.mark.parametrize("name", TASKS)
def test_a_comparison_prints_its_table_and_keeps_its_record(name, tmp_path, capsys):
    out = tmp_path / "run"
    argv = [*SMALL, "--updates", 30, "--seed", "1,2", "--mode", ",".join(MODES), "--out", out]
    assert run(TASKS[name], *argv) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[2:]] == [*MODES]
    assert [line.split()[1] for line in told[2:]] == ["2", "8", "all", *"222222"]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {(row["mode"], row["seed"]) for row in rows} == {(m, s) for m in MODES for s in (1, 2)}
    assert all(row["updates"] == 30 and row["seconds"] > 0 for row in rows)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len([*out.iterdir()]) == 2
    with pytest.raises(SystemExit) as ended:
        run(TASKS[name], *argv)
    assert ended.value.code == 2
    assert "holds a run already" in capsys.readouterr().err


def test_equal_time(capsys):
    assert run(recall_task, *SMALL, "--seconds", 0.3, "--mode", "bptt,dni") == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    updates = {row.split()[0]: float(row.split()[4]) for row in rows}
    assert updates["bptt"] > updates["dni"] > 0


def test_curricula_grow_when_the_error_is_small():
    run_ = episodes.EpisodeRun("bptt", 1, recall_task.RecallTask(args()), args(lr=1e-2, hidden=16))
    for _ in range(1500):
        run_.update()
    assert run_.difficulty > 2
    assert [difficulty for _, _, difficulty in run_.history] == [*range(1, run_.difficulty + 1)]
    assert run_.result()["solved"] == run_.difficulty - 1


def test_recall_data():
    episode = recall_task.RecallTask(args()).sample(5, 9, torch.Generator().manual_seed(0))
    assert episode.input.shape == (7, 9, 3)
    assert torch.equal(episode.target[-1, :, 0] > 0, episode.input[0, :, 0] > 0)
    assert episode.mask.tolist() == [0] * 6 + [1]
    assert episode.input[:, 0, 1].tolist() == [1] + [0] * 6
    assert episode.input[:, 0, 2].tolist() == [0] * 6 + [1]
    assert episode.input[:-1, :, 0].abs().min() == 1
    assert not episode.input[-1, :, 0].any()


def test_copy_and_repeat_data():
    episode = copy_task.CopyEpisodes(args()).sample(4, 9, torch.Generator().manual_seed(0))
    assert episode.input.shape == (9, 9, 4)
    assert torch.equal(episode.target[5:], episode.input[:4, :, :3])
    assert episode.mask.tolist() == [0] * 5 + [1] * 4
    task, random = repeat_copy_task.RepeatCopyTask(args()), torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(20):
        episode = task.sample(2, 2, random)
        times = int(episode.input[2, 0, 3])
        seen.add(times)
        assert len(episode.input) == 2 + 1 + 2 * times + 1
        for i in range(times):
            part = slice(3 + 2 * i, 5 + 2 * i)
            assert torch.equal(episode.target[part, :, :3], episode.input[:2, :, :3])
        assert episode.target[-1, :, 3].all()
        assert not episode.target[:-1, :, 3].any()
        assert episode.mask.sum() == 2 * times + 1
    assert seen == {1, 2, 3}


def test_windows_meet_all_steps_alike_and_cover_each_episode_once():
    task = copy_task.CopyEpisodes(args())
    run_ = episodes.EpisodeRun("bptt", 1, task, args(window=3))
    run_.difficulty = 5
    starts = []
    for _ in range(200):
        run_.update()
        starts.append(run_._position if run_._episode is not None else 11)
    firsts = {b for a, b in zip([11, *starts], starts, strict=False) if a == 11}
    assert firsts == {1, 2, 3}
    for a, b in itertools.pairwise(starts):
        assert b == min(a + 3, 11) or a == 11


def test_the_context_is_what_the_next_window_is_asked():
    task = copy_task.CopyEpisodes(args())
    run_ = episodes.EpisodeRun("cdni", 1, task, args(window=2))
    run_.difficulty = 3
    run_._start_episode()
    context = run_._next_targets(3).view(4, 2, 4)  # three bits, and whether they are due
    assert not context[:, 0].any()
    assert torch.equal(context[:, 1, :3], run_._episode.target[4])
    assert context[:, 1, 3].all()
    assert not run_._next_targets(7).any()


def test_bad_options(capsys):
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
