"""Outputs that hide their tensors: gradients are delivered to them, or an error says why not."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal
from torch.nn import functional as F

from pytorch_dni import DNI, DNIError

WAYS = {
    "default": {"unlock": "update"},
    "eager": {"eager": True},
    "exact": {"exact_every": 2, "unlock": "update"},
}
DETACHING = ["eager", "exact"]


class Network(nn.Module):
    """Returns what ``wrap`` makes of its last activation."""

    def __init__(self, wrap):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.c(torch.tanh(self.b(torch.tanh(self.a(x))))))


class Result:
    def __init__(self, scores):
        self.scores, self.names = scores, ["a", "b"]
        self.itself = self


class Holder:
    def __init__(self, scores):
        self.inner = [Result(scores)]


@dataclass
class Record:
    scores: torch.Tensor


class Closure:
    """Not even its attributes show the tensor."""

    def __init__(self, scores):
        self.read = lambda: scores


class Slots:
    __slots__ = ("scores",)

    def __init__(self, scores):
        self.scores = scores


LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
SHOWN = {
    "categorical": (lambda h: Categorical(logits=h), lambda o: -o.log_prob(LABELS).mean()),
    "normal": (lambda h: Normal(h, h.exp()), lambda o: -o.log_prob(torch.ones(4)).mean()),
    "nested": (
        lambda h: Independent(Normal(h, torch.ones(4)), 1),
        lambda o: -o.log_prob(torch.ones(4)).mean(),
    ),
    "own": (Result, lambda o: F.cross_entropy(o.scores, LABELS)),
    "deep": (Holder, lambda o: F.cross_entropy(o.inner[0].scores, LABELS)),
    "complex": (lambda h: torch.complex(h, h * 2), lambda o: o.abs().square().mean()),
    "dataclass": (Record, lambda o: F.cross_entropy(o.scores, LABELS)),
}
HIDDEN = {
    "closure": (Closure, lambda o: F.cross_entropy(o.read(), LABELS), "Closure"),
    "slots": (Slots, lambda o: F.cross_entropy(o.scores, LABELS), "Slots"),
    "beside": (
        lambda h: (h.square(), Closure(h)),
        lambda o: F.cross_entropy(o[1].read(), LABELS),
        "tuple",
    ),
}


def wrapped(wrap, way):
    torch.manual_seed(0)
    return DNI(Network(wrap), layers=["a", "b"], **WAYS[way])


def gradients(net, loss):
    torch.manual_seed(1)
    found = []
    for _ in range(4):
        net.zero_grad()
        loss(net(torch.randn(8, 12))).backward()
        found.append({name: p.grad for name, p in net.network.named_parameters()})
    return found


@pytest.mark.parametrize("way", DETACHING)
@pytest.mark.parametrize("name", SHOWN)
def test_tensors_in_objects_get_their_gradients(name, way):
    wrap, loss = SHOWN[name]
    for step in gradients(wrapped(wrap, way), loss):
        assert all(grad is not None for grad in step.values())


@pytest.mark.parametrize("way", DETACHING)
@pytest.mark.parametrize("name", SHOWN)
def test_they_get_them_behind_frozen_layers(name, way):
    wrap, loss = SHOWN[name]
    net = wrapped(wrap, way)
    net.network.c.requires_grad_(False)
    for step in gradients(net, loss):
        assert step.pop("c.weight") is step.pop("c.bias") is None
        assert all(grad is not None for grad in step.values())


@pytest.mark.parametrize("name", SHOWN)
def test_gradients_equal_those_of_the_default_way(name):
    wrap, loss = SHOWN[name]
    found, expected = (gradients(wrapped(wrap, way), loss) for way in ("eager", "default"))
    for ours, theirs in zip(found, expected, strict=True):
        for key, grad in theirs.items():
            torch.testing.assert_close(ours[key], grad)


@pytest.mark.parametrize("way", DETACHING)
@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_tensor_is_an_error_at_the_first_step_without_exact_gradients(name, way):
    wrap, loss, kind = HIDDEN[name]
    net = wrapped(wrap, way)
    x = torch.randn(8, 12)
    if way == "exact":
        loss(net(x)).backward()
    words = rf"cut 'b', but no tensor of the network's output \({kind}\).*dataclasses"
    loss_of_pass = loss(net(x))
    with pytest.raises(DNIError, match=words):
        loss_of_pass.backward()


@pytest.mark.parametrize("way", DETACHING)
def test_objects_of_the_network_stay_as_they_are(way):
    """The output is a copy where a tensor in it is replaced; other objects are passed on."""
    kept = []

    def wrap(h):
        kept.append(Holder(h))
        return kept[-1]

    net = wrapped(wrap, way)
    net(torch.randn(8, 12)).inner[0].scores.sum().backward()
    out = net(torch.randn(8, 12))
    assert type(out) is Holder
    assert out.inner[0].itself is out.inner[0]
    assert out.inner[0].names == ["a", "b"]
    assert kept[-1].inner[0].scores is not out.inner[0].scores
    torch.testing.assert_close(kept[-1].inner[0].scores, out.inner[0].scores)
    constant = Result(torch.ones(2))
    net.network.wrap = lambda h: {"scores": h, "object": constant}
    assert net(torch.randn(8, 12))["object"] is constant
    copy.deepcopy(net)
