"""The task finds planted labels by projections, and is resumed where it was stopped."""

import json

import numpy
import pytest
import torch

from tasks import influence, mnist
from tasks.image_data import ImageSet
from tests.support.data import needs_data
from tests.support.programs import fails, run

SIZES = ["--train-samples", 200, "--test-samples", 60, "--epochs", 3, "--hidden", 16, "--dim", 64]
SIZES += ["--batch", 20, "--rows", 1, "--data", "made"]


@pytest.fixture
def digits(monkeypatch):
    """Put made images, each class with its own mean, in the place of MNIST."""

    def load(args, train):
        random = torch.Generator().manual_seed(0)
        means = 1.5 * torch.randn(10, 1, 28, 28, generator=random)
        count = 300 if train else 80
        labels = torch.randint(10, (count,), generator=random.manual_seed(1 + train))
        noise = torch.randn(count, 1, 28, 28, generator=random)
        noise[: count // 4] *= 40  # these cannot be recognised
        return ImageSet(means[labels] + noise, labels)

    monkeypatch.setattr(mnist, "load_digits", load)


def contents(folder):
    """Return what the run has computed."""
    found = {path.name: numpy.load(path) for path in folder.glob("*.npy")}
    return found, json.loads((folder / influence.FIGURES).read_text())


def test_planted_labels_are_found(digits, tmp_path, capsys):
    argv = [*SIZES, "--relabelled", 0.05, "--network", "mlp", "--out", tmp_path / "run"]
    assert run(influence, *argv) == 0
    arrays, figures = contents(tmp_path / "run")
    assert figures["relabelled"] == 10
    assert figures["wrong"] > 0
    assert f"{figures['wrong']} of 60 test digits" in capsys.readouterr().out
    assert arrays["training-1.npy"].shape == (200, 64)
    assert len(arrays) == 6
    assert (tmp_path / "run" / influence.FIGURE).read_bytes().startswith(b"\x89PNG")
    assert "holds a run already" in fails(capsys, influence, *argv)


def test_the_share_found_is_that_among_the_largest():
    sizes = torch.arange(100.0)
    relabelled = torch.zeros(100, dtype=torch.bool)
    relabelled[[3, 95, 99]] = True  # the largest five are 95 to 99
    assert influence.share_found(sizes, relabelled) == pytest.approx(2 / 3)


def test_labels_are_planted_in_the_share_that_is_asked_for(digits):
    sizes = ["--train-samples=300", "--test-samples=5"]
    args = influence.parser().parse_args([*sizes, "--relabelled=0.2"])
    training = mnist.load_digits(args, True)
    found = influence.plant(training, mnist.load_digits(args, False), args)
    order = torch.randperm(300, generator=influence.step_generator(args.seed, -2))
    differs = found.training.labels != training.labels[order]
    assert torch.equal(differs, found.relabelled)
    assert differs.sum() == 60
    assert torch.equal(found.training.images, training.images[order])


def test_a_run_that_was_stopped_is_resumed(digits, tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(influence, *SIZES, "--out", whole) == 0
    write, written = influence.ProjectionFile.append, []

    def append(self, rows):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(self.path)
        write(self, rows)

    monkeypatch.setattr(influence.ProjectionFile, "append", append)
    assert run(influence, *SIZES, "--out", stopped) == 130
    assert "--resume continues" in capsys.readouterr().err
    monkeypatch.setattr(influence.ProjectionFile, "append", write)
    monkeypatch.setattr(influence, "train", None)  # the checkpoint has the training
    assert run(influence, *SIZES, "--out", stopped, "--resume") == 0
    arrays, figures = contents(stopped)
    expected, expected_figures = contents(whole)
    assert figures == expected_figures
    for name in expected:
        numpy.testing.assert_array_equal(arrays[name], expected[name])
    capsys.readouterr()
    other = [*SIZES, "--seed", 2, "--out", stopped, "--resume"]
    assert "has other options" in fails(capsys, influence, *other)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--resume"], "--resume needs --out"),
        (["--train-samples", "301"], "--train-samples 301 is more than the 300 there are"),
        (["--relabelled", "0"], "--relabelled"),
        (["--relabelled", "1.1"], "must be a number of at most 1,"),
    ],
)
def test_wrong_options_are_one_line(digits, capsys, argv, message):
    assert message in fails(capsys, influence, *SIZES, *argv)


@needs_data
def test_influence_on_mnist(tmp_path):
    argv = [
        "--train-samples",
        1000,
        "--test-samples",
        100,
        "--epochs",
        6,
        "--hidden",
        32,
        "--dim",
        64,
    ]
    assert run(influence, *argv, "--rows", 1, "--out", tmp_path) == 0
    assert json.loads((tmp_path / influence.FIGURES).read_text())["found"] > 0.5
