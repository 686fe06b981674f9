"""The transformer task: its data, its network, its loss, and the program."""

import json
import math

import pytest
import torch

from tasks import char_transformer, output_folder
from tasks.comparison_options import equal_configurations
from tasks.language_runs import PennTreebank
from tests.support.programs import assert_equal_results, fails, run

SMALL = ["--hidden", 24, "--depth", 2, "--length", 8, "--batch", 8, "--device", "cpu"]


def make_task(corpus, *options):
    args = [str(option) for option in (*SMALL, "--data", corpus, *options)]
    text = PennTreebank(corpus, list)
    return char_transformer.CharTransformerTask(char_transformer.parser().parse_args(args), text)


def test_targets_and_contexts_are_the_next_characters(corpus):
    task, other = make_task(corpus), make_task(corpus)
    batch = task.training_batch(1, 3)
    assert batch.input.shape == batch.target.shape == (8, 8)
    assert torch.equal(batch.input[:, 1:], batch.target[:, :-1])
    assert batch.context is batch.target
    text = (corpus / "ptb.train.txt").read_text()
    vocabulary = PennTreebank(corpus, list).vocabulary
    for row, last in zip(batch.input.tolist(), batch.target[:, -1].tolist(), strict=True):
        assert "".join(vocabulary[i] for i in [*row, last]) in text
    torch.manual_seed(0)
    assert all(map(torch.equal, batch, other.training_batch(1, 3)))
    for seed, step in ((1, 4), (2, 3)):
        assert not torch.equal(batch.input, task.training_batch(seed, step).input)
    assert all(map(torch.equal, next(iter(task.test_batches())), next(iter(other.test_batches()))))


def test_an_output_depends_on_earlier_characters_alone(corpus):
    network = make_task(corpus).build_network().double()
    input = make_task(corpus).training_batch(1, 0).input
    changed = input.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 3
    difference = (network(input) - network(changed)).abs().amax((0, 2))
    assert not difference[:5].any()
    assert (difference[5:] > 0).all()


def test_losses_are_in_bits_and_errors_are_fractions(corpus):
    task = make_task(corpus)
    batch = task.training_batch(1, 0)
    logits = torch.zeros(8, 8, task.context_size)
    assert task.loss(logits, batch.target).item() == pytest.approx(math.log2(task.context_size))
    certain = torch.nn.functional.one_hot(batch.target, task.context_size).float()
    assert task.error(certain, batch) == 0
    certain[0, 0] = certain[0, 0].roll(1)
    assert task.error(certain, batch).item() == pytest.approx(1 / 64)


def test_all_modes_learn(corpus, capsys, tmp_path):
    out, modes = tmp_path / "run", "bp,feedback,local-error,exact,local"
    run(char_transformer, *SMALL, "--data", corpus, "--mode", modes, "--steps", 60, "--out", out)
    assert "losses in bits for each character" in capsys.readouterr().out
    lines = map(json.loads, (out / output_folder.METRICS).read_text().splitlines())
    chance = math.log2(len(PennTreebank(corpus, list).vocabulary))
    losses = {row["mode"]: row["test_loss"] for row in lines}
    assert len(losses) == 5
    assert all(loss < chance - 0.5 for loss in losses.values())


def test_a_resumed_run_equals_an_uninterrupted_one(corpus, tmp_path):
    common = [*SMALL, "--data", corpus, "--every", 2, "--mode", "bp,feedback,local-error"]
    run(char_transformer, *common, "--steps", 4, "--out", tmp_path / "a")
    again = ["--data", corpus, "--steps", 8, "--out", tmp_path / "a", "--resume", "--device", "cpu"]
    run(char_transformer, *again)
    run(char_transformer, *common, "--steps", 8, "--out", tmp_path / "b")
    assert_equal_results(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("parts", [None, 2])
def test_the_network_is_cut_into_parts(corpus, parts):
    task = make_task(corpus, *([] if parts is None else ["--parts", parts]))
    (row,) = equal_configurations(char_transformer.parser().parse_args(["--mode", "dni"]))
    net = row.wrap(task.build_network(), None, task)
    net(task.training_batch(1, 0).input)
    assert len(net.interfaces) == (2 if parts is None else 1)


def test_wrong_options_are_errors_in_one_line(capsys, corpus, tmp_path):
    for options, words in [
        (["--data", tmp_path / "nowhere"], "ptb.train.txt"),
        (["--data", corpus, "--hidden", 25], "multiple of 24"),
        (["--data", corpus, "--length", 100_000], "--length"),
    ]:
        assert words in fails(capsys, char_transformer, *SMALL, "--steps", 1, *options)
