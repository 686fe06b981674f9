"""Contexts: wrong ones are errors in the forward pass."""

import pytest
import torch
from torch import nn

from pytorch_dni import (
    ContextError,
    DNI,
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    synthesizer_context,
)


@pytest.mark.parametrize("kind", [None, Linear_DNI, LocalLoss_DNI])
@pytest.mark.parametrize(
    ("context", "words"),
    [
        (None, "needs a context of size 3"),
        (torch.tensor([0, 1, 3, 0]), "labels run from 0 to 3"),
        (torch.tensor([0, -1, 2, 0]), "labels run from -1"),
        (torch.randn(4, 2), "must be context_size=3"),
        (torch.tensor([0, 1, 2]), "does not fit an activation of shape"),
        (torch.randn(5, 3), "does not fit an activation of shape"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_wrong_contexts_are_errors_and_change_nothing(context, words, first, kind):
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    net = DNI(network, context_size=3, dni_network=kind)
    x = torch.randn(4, 4)
    if not first:
        with synthesizer_context(torch.tensor([0, 1, 2, 0])):
            net(x).sum().backward()
    with pytest.raises(ContextError, match=words), synthesizer_context(context):
        net(x)
    with synthesizer_context(torch.tensor([0, 1, 2, 0])):
        net(x).sum().backward()
    assert net.stats()["1"].updates == 2 - first


@pytest.mark.parametrize("kind", [LocalError_DNI, LocalLoss_DNI])
def test_labels_that_do_not_fit_a_map_are_errors(kind):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    net = DNI(network, context_size=3, dni_network=kind)
    with (
        pytest.raises(ContextError, match=r"'1': a context of shape \(2, 4, 4\).*pool=None"),
        synthesizer_context(torch.zeros(2, 4, 4, dtype=torch.int64)),
    ):
        net(torch.randn(2, 1, 6, 6))


def test_a_context_without_context_size_is_an_error():
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    with pytest.raises(ContextError, match="context_size"), synthesizer_context(torch.tensor([0])):
        net(torch.randn(1, 4))
    with pytest.raises(ContextError, match="list"), synthesizer_context([0, 1]):
        pass
