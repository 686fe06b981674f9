"""Tasks on sequences: the data of each task, and the error by chance."""

import itertools

import pytest
import torch

from tasks import adding_task, argmax_task, copy_task
from tests.support.programs import sequence_task


def test_copy_data():
    task = sequence_task(copy_task.CopyTask, 3)
    batch = task.sample(5, torch.Generator().manual_seed(0))
    for x, y in zip(batch.input.tolist(), batch.target.tolist(), strict=True):
        assert [step[-1] for step in x] == [0, 0, 0, 1, 0, 0, 0]
        assert [step[:4] for step in y[4:]] == [step[:4] for step in x[:3]]
        assert [step[-1] for step in y] == [0, 0, 0, 0, 1, 1, 1]
        assert not any(map(any, x[4:]))
    output = torch.zeros(5, 7, 4)
    output[:, 4:] = batch.input[:, :3, :4] * 2 - 1
    assert task.error(output, batch) == 0
    assert task.error(-output, batch) == 1
    good, bad = task.loss(output * 20, batch.target), task.loss(-output * 20, batch.target)
    assert good < 1e-6 < bad


@pytest.mark.parametrize("target", ["position", "value"])
def test_argmax_data(target):
    task = sequence_task(argmax_task.ArgmaxTask, 4, target=target)
    batch = task.sample(50, torch.Generator().manual_seed(0))
    for x, y in zip(batch.input.argmax(-1).tolist(), batch.target.tolist(), strict=True):
        assert y == (max(x) if target == "value" else x.index(max(x)))
    guesses = {}
    for digits in itertools.product(range(5), repeat=4):
        label = max(digits) if target == "value" else digits.index(max(digits))
        guesses[label] = guesses.get(label, 0) + 1
    assert task.chance_error == pytest.approx(1 - max(guesses.values()) / 5**4)


def test_adding_data():
    task = sequence_task(adding_task.AddingTask, 3)
    batch = task.sample(50, torch.Generator().manual_seed(0))
    assert torch.equal(batch.input.argmax(-1).sum(1), batch.target)
    assert batch.context.shape == (50, 3, 14)
    assert batch.context[:, :, -1].tolist() == [[0, 0, 1]] * 50
    guesses = [sum(digits) for digits in itertools.product(range(5), repeat=3)]
    assert task.chance_error == pytest.approx(1 - max(map(guesses.count, guesses)) / 5**3)
