"""Saved places: what is known of cuts is loaded whole, and refused where it is nonsense."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import CheckpointError, DNI, synthesizer_context
from tests.support.checkpoints import (
    assert_same_state,
    cloned,
    structure,
    through_file,
    with_structure,
)


class Positions(nn.Module):
    """A cut before an activation function, and one without the samples of the batch."""

    def __init__(self):
        super().__init__()
        self.first, self.position = nn.Linear(4, 8), nn.Embedding(3, 8)
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        h = F.gelu(self.first(x)) + self.position(torch.arange(3))[None]
        return self.head(F.gelu(self.inner(h)))


def made():
    torch.manual_seed(0)
    return DNI(Positions(), context_size=2)


@pytest.fixture
def net():
    net = made()
    for step in range(2):
        torch.manual_seed(step)
        with synthesizer_context(torch.tensor([0, 1, 1, 0, 1])):
            net(torch.randn(5, 3, 4)).square().mean().backward()
    return net


def test_they_are_in_the_state_and_load(net):
    saved = through_file(net.state_dict())
    cuts = structure(saved)["cuts"]
    assert cuts["before_activation"] == {"first": "gelu", "inner": "gelu"}
    assert list(cuts["passed_over"]) == ["position"]
    loaded = made()
    loaded.load_state_dict(saved)
    assert loaded.describe() == net.describe()
    assert "passed over: 'position'" in loaded.describe()
    assert_same_state(loaded.state_dict(), saved)


NONSENSE = {
    "none": None,
    "text": "nonsense",
    "list": ["list"],
    "another cut": {"elsewhere": "gelu"},
    "no text": {"first": None},
    "data": {"first": ["fixed", 7]},
}


@pytest.mark.parametrize("place", ["before_activation", "passed_over"])
@pytest.mark.parametrize("value", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_and_nothing_changes(net, place, value):
    saved, before = cloned(net.state_dict()), net.describe()
    changed = structure(saved)
    changed["cuts"][place] = value
    for target in (net, made()):
        kept = cloned(target.state_dict())
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            target.load_state_dict(with_structure(saved, changed))
        assert_same_state(target.state_dict(), kept)
    assert net.describe() == before
    del changed["cuts"][place]
    with pytest.raises(CheckpointError, match=place):
        net.load_state_dict(with_structure(saved, changed))
    assert net.describe() == before


@pytest.mark.parametrize("place", ["parts", "error"])
def test_parts_and_errors_at_no_cut_are_refused(net, place):
    saved = cloned(net.state_dict())
    changed = structure(saved)
    if place == "parts":
        changed["cuts"]["parts"][1]["cut"] = "elsewhere"
    else:
        shape = torch.tensor([5, 3, 2])
        saved["_dni.cuts.error.shape"] = shape
        changed["cuts"]["error"] = {
            "cut": "elsewhere",
            "shape": ["tensor", "int64", [3]],
            "feature_dim": ["fixed", -1],
            "residual": ["list"],
        }
    with pytest.raises(CheckpointError, match=r"elsewhere.* no cut"):
        net.load_state_dict(with_structure(saved, changed))
