"""Small networks use one thread, large ones all, unless an option says how many."""

import pytest
import torch
from torch import nn

from tasks import copy_task, threads
from tests.support.programs import run


@pytest.fixture(autouse=True)
def _four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


NETWORKS = {
    "linear": (lambda: nn.Linear(100, 50), torch.randn(8, 100), 8 * 100 * 50),
    "positions": (lambda: nn.Linear(100, 50), torch.randn(8, 3, 100), 24 * 100 * 50),
    "convolution": (
        lambda: nn.Conv2d(3, 5, 3, padding=1),
        torch.randn(2, 3, 6, 6),
        2 * 36 * 5 * 27,
    ),
    "lstm": (lambda: nn.LSTM(10, 20, batch_first=True), torch.randn(4, 9, 10), 4 * 80 * 20),
    "nested": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 9)),
        torch.randn(3, 4),
        3 * 45,
    ),
    "none": (nn.ReLU, torch.randn(3, 4), 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_multiplications_of_the_largest_layer_are_counted(name):
    build, input, expected = NETWORKS[name]
    network = build()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()
    assert threads.largest_layer(network, input) == expected
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not network._forward_hooks


def test_small_networks_use_one_thread():
    assert threads.use(None, nn.Linear(1000, 1000), torch.randn(2**7, 1000)) == 4
    assert threads.use(None, nn.Linear(10, 10), torch.randn(2, 10)) == 1
    assert torch.get_num_threads() == 1
    assert threads.use(3, nn.Linear(10, 10), torch.randn(2, 10)) == 3


def test_programs_say_how_many_they_use_and_restore_the_number(capsys):
    argv = ["--batch", 4, "--hidden", 8, "--length", 2, "--steps", 2, "--mode", "bp"]
    run(copy_task, *argv, "--device", "cpu")
    assert "on the CPU, 1 thread\n" in capsys.readouterr().out
    assert torch.get_num_threads() == 4
    run(copy_task, *argv, "--device", "cpu", "--threads", 2)
    assert "on the CPU, 2 threads\n" in capsys.readouterr().out
    assert torch.get_num_threads() == 4
