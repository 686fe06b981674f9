"""Accuracy beside other libraries: on made data, with a module in place of BioTorch."""

import argparse
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.__main__ import main
from benchmarks.peer_methods import BIOTORCH_MODES
from tasks.image_data import ImageSet
from tasks.image_task import ImageTask

CLASSES = 3
OWN = ["backpropagation", "DNI", "DNI, labels as context"]


class MadeTask(ImageTask):
    """Images of 16 pixels; each class has its own mean."""

    def __init__(self):
        args = argparse.Namespace(
            device=torch.device("cpu"), batch=8, epochs=None, test_samples=None
        )
        random = torch.Generator().manual_seed(0)
        means = 2 * torch.randn(CLASSES, 1, 4, 4, generator=random)
        sets = []
        for count in (64, 400):
            labels = torch.randint(CLASSES, (count,), generator=random)
            noise = torch.randn(count, 1, 4, 4, generator=random)
            sets.append(ImageSet(means[labels] + noise, labels))
        super().__init__(args, *sets, [str(label) for label in range(CLASSES)])

    def build_network(self):
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(16, 12),
            nn.ReLU(),
            nn.Linear(12, 12),
            nn.ReLU(),
            nn.Linear(12, 3),
        )


class PlainBioModule(nn.Module):
    """Take the arguments of BioTorch's module, and leave the network as it is."""

    converted: list[tuple[str, int]]

    def __init__(self, module, mode, output_dim):
        super().__init__()
        print("converted")
        self.converted.append((mode, output_dim))
        self.module, self.mode = module, mode

    def forward(self, x, targets=None, loss_function=None):
        output = self.module(x)
        if self.mode == "dfa" and self.training:
            assert loss_function(output, targets) == F.cross_entropy(output, targets)
        else:
            assert targets is None
            assert loss_function is None
        return output


@pytest.fixture
def biotorch(monkeypatch):
    """Put a module in place of BioTorch and return its class."""
    monkeypatch.setattr(PlainBioModule, "converted", [], raising=False)
    fake = SimpleNamespace(BioModule=PlainBioModule)
    monkeypatch.setitem(sys.modules, "biotorch.module.biomodule", fake)
    return PlainBioModule


@pytest.fixture
def without_biotorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "biotorch.module.biomodule", None)


def run(measure=peers.run, **arguments):
    task = MadeTask()
    return measure("cpu", {"small": task.build_network}, task=task, blocks=1, **arguments)


def test_all_methods_start_alike_and_see_the_same_batches(biotorch, capsys):
    threads = torch.get_num_threads()
    text, figures = run(seeds=(1, 2), epochs=6)
    accuracies = {row["method"]: row["accuracies"] for row in figures}
    assert list(accuracies) == [*OWN, *BIOTORCH_MODES]
    for name in BIOTORCH_MODES:
        assert accuracies[name] == accuracies["backpropagation"]
    assert accuracies["DNI"] != accuracies["backpropagation"]
    first, second = accuracies["backpropagation"]
    assert first != second
    assert f"{(first + second) / 2:.2f}" in text
    assert biotorch.converted == [(mode, CLASSES) for mode in BIOTORCH_MODES.values()] * 2
    assert figures[0]["ratio"] == 1
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr()
    assert printed.out == ""  # What BioTorch prints is left out.
    assert "BioTorch" not in printed.err


def test_the_networks_learn(without_biotorch):
    _, figures = run(seeds=(1,), epochs=25)
    for row in figures:
        assert row["accuracies"][0] > 85, row["method"]


def test_without_biotorch_its_rows_are_left_out(without_biotorch, monkeypatch, tmp_path, capsys):
    measure = peers.run
    monkeypatch.setattr(peers, "run", lambda device: run(measure, seeds=(1,), epochs=1))
    assert main(["peers", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr()
    assert all(name in printed.out for name in OWN)
    assert "| BioTorch" not in printed.out
    assert "BioTorch is not installed" in printed.err
    assert "pip install --no-deps -r requirements-peers.txt" in printed.err


def test_without_data_there_is_one_clear_error(without_biotorch, monkeypatch, capsys):
    monkeypatch.delenv("DNI_DATA", raising=False)
    with pytest.raises(SystemExit):
        main(["peers"])
    assert "where is MNIST?" in capsys.readouterr().err
