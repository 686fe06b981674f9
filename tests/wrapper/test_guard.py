"""One warning where a network does not learn, and none where it does."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, Linear_DNI, LocalLoss_DNI, synthesizer_context

WORDS = "does not seem to learn"
MEANS = 1.5 * torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
LABELS = {"context_size": 5}


def network(depth=2, norm=False, activation=nn.ReLU):
    layers, width = [], 16
    for _ in range(depth):
        layers += [nn.Linear(width, 24), *([nn.BatchNorm1d(24)] if norm else []), activation()]
        width = 24
    return nn.Sequential(*layers, nn.Linear(width, 5))


def train(net, steps, lr=1e-3, loss=F.cross_entropy, context=True):
    """Train on five classes of points, and return the warnings of the guard."""
    optimizer = torch.optim.Adam(net.parameters(), lr)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            labels = torch.randint(0, 5, (32,))
            optimizer.zero_grad()
            with synthesizer_context(labels if context else None):
                output = net(MEANS[labels] + torch.randn(32, 16))
            loss(output, labels).backward()
            optimizer.step()
    return [str(item.message) for item in caught if WORDS in str(item.message)]


def wandering(output, labels):
    """A loss whose gradient grows while the network cannot follow."""
    return F.cross_entropy(output, torch.randint(0, 5, labels.shape))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exact_every": 4},
        {"context_size": 5},
        {"context_size": 5, "dni_network": Linear_DNI},
        {"context_size": 5, "dni_network": LocalLoss_DNI},
        {"context_size": 5, "eager": True},
        {"context_size": 5, "unlock": "full"},
        {"unlock": "update"},
        {"bp_lambda": 0.5},
        {"context_size": 5, "update_probability": 0.5},
    ],
    ids=str,
)
def test_nothing_is_said_of_runs_that_learn(options):
    net = DNI(network(norm="eager" in options), **options)
    assert not train(net, 510, context="context_size" in options)


def test_one_warning_names_the_figures_and_the_remedies():
    net = DNI(network(), unlock="update")
    found = train(net, 620, loss=wandering, context=False)
    assert len(found) == 1
    message = found[0]
    assert "Sequential does not seem to learn: after 500 steps" in message
    assert (
        "times as large as before training; the lowest cosine similarity of stats() is" in message
    )
    assert "at '1'" in message or "at '3'" in message
    order = ["unlock='backward'", "labels as context", "bp_lambda=1", "learning rate", "layers=N"]
    places = [message.index(words) for words in order]
    assert places == sorted(places)


def test_a_network_that_collapses_is_named():
    torch.manual_seed(3)
    net = DNI(network(8, activation=nn.Tanh), unlock="update")
    assert len(train(net, 800, lr=3e-2, context=False)) == 1


@pytest.mark.parametrize("case", ["l1", "resumed", "copy", "autocast", "two outputs", "exact"])
def test_nothing_is_said_where_the_size_shows_nothing(case):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = network(), nn.Linear(16, 2)

        def forward(self, x):
            return self.body(x), self.head(x)

    options = {"bp_lambda": 1.0} if case == "exact" else {"unlock": "update"}
    net = DNI(Two() if case == "two outputs" else network(), **options)
    loss = wandering
    if case == "l1":
        loss = lambda output, labels: (output - 1e3).abs().mean()  # noqa: E731
    if case == "two outputs":
        loss = lambda output, labels: wandering(output[0], labels)  # noqa: E731
    if case in ("resumed", "copy"):
        assert not train(net, 20, loss=loss, context=False)
        state = net.state_dict()
        net = copy.deepcopy(net)
        if case == "resumed":
            net = DNI(network(), unlock="update")
            net.load_state_dict(state)
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert not train(net, 510, loss=loss, context=False)


@pytest.mark.parametrize(
    "options",
    [{}, {"exact_every": 4}, {"context_size": 5}, {"context_size": 5, "eager": True}],
    ids=str,
)
def test_every_way_to_learn_is_watched(options):
    net = DNI(network(), **options)
    found = train(net, 510, loss=wandering, context="context_size" in options)
    assert len(found) == 1
