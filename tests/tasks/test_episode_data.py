"""Tasks on windows: episodes, their windows, and the context of a window."""

import itertools

import torch

from tasks import copy_task, episodes, recall_task, repeat_copy_task
from tests.support.programs import episode_args


def test_recall_data():
    episode = recall_task.RecallTask(episode_args()).sample(5, 9, torch.Generator().manual_seed(0))
    assert episode.input.shape == (7, 9, 3)
    assert torch.equal(episode.target[-1, :, 0] > 0, episode.input[0, :, 0] > 0)
    assert episode.mask.tolist() == [0] * 6 + [1]
    assert episode.input[:, 0, 1].tolist() == [1] + [0] * 6
    assert episode.input[:, 0, 2].tolist() == [0] * 6 + [1]
    assert episode.input[:-1, :, 0].abs().min() == 1
    assert not episode.input[-1, :, 0].any()


def test_copy_and_repeat_data():
    episode = copy_task.CopyEpisodes(episode_args()).sample(4, 9, torch.Generator().manual_seed(0))
    assert episode.input.shape == (9, 9, 4)
    assert torch.equal(episode.target[5:], episode.input[:4, :, :3])
    assert episode.mask.tolist() == [0] * 5 + [1] * 4
    task, random = repeat_copy_task.RepeatCopyTask(episode_args()), torch.Generator().manual_seed(0)
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


def test_windows_start_at_every_step_and_cover_each_episode_once():
    task = copy_task.CopyEpisodes(episode_args())
    training = episodes.EpisodeRun("bp", 1, task, episode_args(window=3))
    training.difficulty = 5
    starts = []
    for _ in range(200):
        training.train_step()
        starts.append(training._position if training._episode is not None else 11)
    firsts = {b for a, b in zip([11, *starts], starts, strict=False) if a == 11}
    assert firsts == {1, 2, 3}
    for a, b in itertools.pairwise(starts):
        assert b == min(a + 3, 11) or a == 11


def test_the_context_is_the_target_of_the_next_window():
    task = copy_task.CopyEpisodes(episode_args())
    training = episodes.EpisodeRun("cdni", 1, task, episode_args(window=2))
    training.difficulty = 3
    training._start_episode()
    context = training._next_targets(3).view(4, 2, 4)  # Three bits, and whether they are due.
    assert not context[:, 0].any()
    assert torch.equal(context[:, 1, :3], training._episode.target[4])
    assert context[:, 1, 3].all()
    assert not training._next_targets(7).any()
