"""Contexts: wrong ones are errors in the forward pass."""

import pytest
import torch
from torch import nn

from pytorch_dni import ContextError, DNI, synthesizer_context


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
def test_wrong_contexts_are_errors_and_change_nothing(context, words, first):
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), context_size=3)
    x = torch.randn(4, 4)
    if not first:
        with synthesizer_context(torch.tensor([0, 1, 2, 0])):
            net(x).sum().backward()
    with pytest.raises(ContextError, match=words), synthesizer_context(context):
        net(x)
    with synthesizer_context(torch.tensor([0, 1, 2, 0])):
        net(x).sum().backward()
    assert net.stats()["1"].updates == 2 - first


def test_a_context_without_context_size_is_an_error():
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    with pytest.raises(ContextError, match="context_size"), synthesizer_context(torch.tensor([0])):
        net(torch.randn(1, 4))
    with pytest.raises(ContextError, match="list"), synthesizer_context([0, 1]):
        pass
