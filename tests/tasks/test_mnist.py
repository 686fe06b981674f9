"""Tasks on MNIST learn; they run where ``DNI_DATA`` names its folder."""

import json

import pytest
import torch
from torch import nn

from tasks import example_digits, mnist, mnist_interfaces, output_folder
from tasks.modes import Configuration, MODES
from tasks.task import Batch
from tasks.training_run import TrainingRun
from tests.support.data import needs_data
from tests.support.programs import fails, run


@needs_data
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_wrapped_networks_learn(network, tmp_path, capsys):
    argv = ["--network", network, "--steps", 100, "--hidden", 64, "--mode", ",".join(MODES)]
    argv += ["--test-samples", 1000]
    assert run(mnist, *argv, "--batch", 32, "--lr", 1e-3, "--out", tmp_path / "run") == 0
    rows = (tmp_path / "run" / output_folder.METRICS).read_text().splitlines()
    errors = {row["mode"]: row["test_error"] for row in map(json.loads, rows)}
    assert errors["bp"] < 0.2
    assert errors["local"] < 0.3
    assert errors["cdni"] < 0.4
    assert errors["feedback"] < 0.2
    assert errors["exact"] < 0.2
    assert errors["local-error"] < 0.3
    assert errors["dni"] < 0.9


@needs_data
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_networks_with_interfaces_by_hand_learn(network, tmp_path, capsys):
    out = tmp_path / "run"
    argv = ["--network", network, "--hidden", 32, "--batch", 32, "--synchronise", 10]
    argv += ["--test-samples", 1000]
    assert run(mnist_interfaces, *argv, "--steps", 60, "--lr", 1e-3, "--out", out) == 0
    printed = capsys.readouterr().out
    for mode in ("dni", "cdni", "full"):
        assert f"\n{mode} by hand " in printed
        assert f"\n{mode} wrapped " in printed
    rows = [json.loads(row) for row in (out / output_folder.METRICS).read_text().splitlines()]
    errors = {row["label"]: row["test_error"] for row in rows}
    assert errors["bp"] < 0.3
    assert abs(errors["cdni by hand"] - errors["cdni wrapped"]) < 0.2
    assert run(mnist_interfaces, "--out", out, "--resume", "--steps", 70) == 0


@needs_data
@pytest.mark.parametrize("argv", [["--unlock", "full"], ["--update-probability", "0.3"]])
def test_networks_with_full_unlock_or_sparse_updates_learn(argv, tmp_path):
    common = ["--hidden", 32, "--batch", 32, "--steps", 120, "--mode", "cdni", "--layers", "6"]
    common += ["--test-samples", 1000]
    assert run(mnist, *common, *argv, "--lr", 1e-3, "--out", tmp_path / "run") == 0
    rows = (tmp_path / "run" / output_folder.METRICS).read_text().splitlines()
    assert json.loads(rows[-1])["test_error"] < 0.6


def test_the_perceptron_has_the_layers_that_options_name():
    from torch import nn

    from tasks.mnist import perceptron

    kinds = [type(layer) for layer in perceptron(2, 8, "layer", "gelu")]
    block = [nn.Linear, nn.LayerNorm, nn.GELU]
    assert kinds == [nn.Flatten, *block, *block, nn.Linear]
    kinds = [type(layer) for layer in perceptron(1, 8, "none", "tanh")]
    assert kinds == [nn.Flatten, nn.Linear, nn.Tanh, nn.Linear]
    kinds = [type(layer) for layer in perceptron(1, 8)]
    assert kinds == [nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]


@needs_data
def test_the_digits_with_the_best_and_worst_gradients_are_drawn(tmp_path, capsys):
    argv = ["--hidden", 16, "--depth", 2, "--batch", 32, "--steps", 2, "--mode", "bp,cdni"]
    argv += ["--plot-examples"]
    assert run(mnist, *argv, "--out", tmp_path) == 0
    assert (tmp_path / example_digits.FIGURE).read_bytes().startswith(b"\x89PNG")
    assert "needs --out" in fails(capsys, mnist, *argv)


def test_digits_are_judged_by_the_cosines_of_a_copy():
    class Made:
        """A batch of four digits."""

        context_size, layers = 3, ["1"]

        def training_batch(self, seed, step):
            random = torch.Generator().manual_seed(seed + step)
            images = torch.randn(6, 1, 2, 2, generator=random)
            labels = torch.arange(6) % 3
            return Batch(images, labels, labels)

        def loss(self, output, target):
            return torch.nn.functional.cross_entropy(output, target)

    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    task = Made()
    trained = TrainingRun(Configuration("cdni", 1e-3), 1, network, task)
    trained.train_block(0, [task.training_batch(1, step) for step in range(3)], True)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    judged = example_digits.judge(trained, task, 3)
    assert judged.cosines.shape == (6,)
    assert judged.cosines.abs().max() <= 1.0001
    assert torch.equal(judged.images, task.training_batch(1, 3).input)
    after = trained.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert example_digits.draw({"cdni": judged}).startswith(b"\x89PNG")
