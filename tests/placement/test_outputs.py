"""``layers=N`` on networks that return several tensors, or objects of other classes."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, SelectionError
from tests.support.wrapped import ALL_WAYS

X, Y = torch.randn(6, 8), torch.randint(0, 3, (6,))


def layers(*widths):
    pairs = itertools.pairwise(widths)
    return [m for a, b in pairs for m in (nn.Linear(a, b), nn.Tanh())]


class Returns(nn.Module):
    """Returns what a function makes of the logits."""

    def __init__(self, make):
        super().__init__()
        self.body = nn.Sequential(*layers(8, 8, 8, 8), nn.Linear(8, 3))
        self.make = make

    def forward(self, x):
        return self.make(self.body(x))


class Record:
    def __init__(self, logits):
        self.inner = Slotted(logits)


class Slotted:
    __slots__ = ("logits",)

    def __init__(self, logits):
        self.logits = logits


KINDS = {
    "distribution": (
        lambda logits: torch.distributions.Categorical(logits=logits),
        lambda output: -output.log_prob(Y).mean(),
    ),
    "class of its own": (Record, lambda output: F.cross_entropy(output.inner.logits, Y)),
    "complex": (lambda t: torch.complex(t, t), lambda output: output.abs().square().mean()),
}


@pytest.mark.parametrize("unlock", ["backward", "update"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_any_class_are_separated(kind, unlock):
    make, loss = KINDS[kind]
    net = DNI(Returns(make), layers=3, unlock=unlock)
    for _ in range(2):
        loss(net(X)).backward()
    parts = [part.cut for part in net._rooms.cuts.parts]
    assert parts == ["body.1", "body.3", ""]
    assert net.stats()["body.1"].updates == 2
    assert all(p.grad is not None for p in net.network.parameters())


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_such_networks_are_placed_by_an_example_in_all_ways(kind, way):
    net = DNI(Returns(KINDS[kind][0]), layers=3, example_input=X, **ALL_WAYS[way])
    assert [part.cut for part in net._rooms.cuts.parts] == ["body.1", "body.3", ""]


def test_an_output_without_tensors_is_an_error_that_names_its_class():
    net = Returns(lambda logits: repr(logits))
    with pytest.raises(SelectionError, match="returned a str, in which no tensor"):
        DNI(net, layers=3, example_input=X)


class WithHidden(nn.Module):
    """Returns a hidden state that was made before the place of equal cost."""

    def __init__(self, early):
        super().__init__()
        self.a = nn.Sequential(*layers(8, 8, 8))
        self.b = nn.Sequential(*layers(8, 64, 64))
        self.c = nn.Linear(64, 3)
        self.early = early

    def forward(self, x):
        hidden = self.a[1](self.a[0](x))
        later = self.a[3](self.a[2](hidden))
        return self.c(self.b(later)), hidden if self.early else later


@pytest.mark.parametrize("way", ALL_WAYS)
def test_outputs_made_before_a_place_exclude_it(way):
    net = DNI(WithHidden(early=False), layers=3, **ALL_WAYS[way])
    for _ in range(2):
        logits, hidden = net(X)
        (F.cross_entropy(logits, Y) + hidden.square().mean()).backward()
    assert [part.cut for part in net._rooms.cuts.parts] == ["a.1", "a.3", ""]
    assert all(stats.updates for stats in net.stats().values())


@pytest.mark.parametrize("way", ALL_WAYS)
def test_an_error_counts_the_parts_where_an_output_is_made_early(way):
    network = WithHidden(early=True)
    net = DNI(network, layers=3, **ALL_WAYS[way])
    with pytest.raises(SelectionError, match=r"2 parts at most, at \['a.1'\]"):
        net(X)


class TwoMaps(nn.Module):
    """Returns two tensors, the second made from the first inside the module."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Sequential(*layers(8, 8)), nn.Sequential(*layers(8, 8))

    def forward(self, x):
        first = self.first[1](self.first[0](x)) * 2
        return first, self.second(first)


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.maps, self.head = (
            nn.Sequential(*layers(8, 8)),
            TwoMaps(),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        first, second = self.maps(self.stem(x))
        return self.head(first + second)


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_module_is_no_place_where_its_output_has_been_used_inside(way):
    net = DNI(Pyramid(), layers=3, **ALL_WAYS[way])
    for _ in range(2):
        F.cross_entropy(net(X), Y).backward()
    assert [part.cut for part in net._rooms.cuts.parts] == ["stem", "maps.first.1", ""]
    with pytest.raises(SelectionError, match="3 parts at most"):
        DNI(Pyramid(), layers=4, example_input=X, **ALL_WAYS[way])
