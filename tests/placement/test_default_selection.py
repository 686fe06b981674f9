"""``layers=None``: where the default cuts are placed."""

import torch
from torch import nn

from tests.support.wrapped import cuts
from tests.support.zoo import Branches, Functional, Recurrent, Residual, Shared, ZOO


def test_cuts_are_placed_after_the_activation_of_a_layer():
    network = nn.Sequential(
        nn.Linear(4, 4),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(4, 4),
        nn.Linear(4, 2),
    )
    assert cuts(network, torch.randn(3, 4)) == ["3", "4"]
    flat = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)
    )
    assert cuts(flat, torch.randn(3, 1, 6, 6)) == ["2"]


def test_cuts_are_placed_at_the_layer_where_no_module_follows_directly():
    assert cuts(Functional(), torch.randn(3, 6)) == ["first", "second"]
    # A norm without an activation after it, an addition, an activation module used twice.
    assert cuts(Residual(), torch.randn(3, 2, 6, 6)) == ["stem", "conv1", "conv2"]


def test_cuts_of_shared_idle_and_recurrent_modules():
    assert cuts(Shared(), torch.randn(3, 6)) == ["stem", "loop"]
    assert cuts(Branches(), torch.randn(3, 6)) == ["body.1", "left"]
    assert cuts(Recurrent(), ZOO["lstm"].input(), recurrent=False) == ["embedding"]


def test_a_layer_called_twice_is_cut_at_itself():
    shared = nn.Linear(4, 4)
    network = nn.Sequential(nn.Linear(4, 4), shared, nn.ReLU(), shared, nn.Tanh(), nn.Linear(4, 2))
    assert cuts(network, torch.randn(3, 4)) == ["0", "1"]
