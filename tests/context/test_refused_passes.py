"""Contexts: a forward pass that is refused leaves the network as it was."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import (
    ContextError,
    DNI,
    DNIError,
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    synthesizer_context,
)

WAYS = {
    "default": {},
    "update": {"unlock": "update"},
    "eager": {"eager": True},
    "exact every": {"exact_every": 2},
    "full": {"unlock": "full"},
    "sparse": {"update_probability": 0.5},
}
X, Y = torch.randn(8, 4), torch.randint(0, 3, (8,))


class Counter(nn.Module):
    """Counts its calls, once in place and once by another tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("renewed", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.renewed = self.renewed + 1
        return x


def counting():
    first = [nn.Linear(4, 5), nn.BatchNorm1d(5), Counter(), nn.ReLU()]
    return nn.Sequential(*first, nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))


def step(net, context=Y):
    with synthesizer_context(context):
        loss = net(X).square().mean()
    loss.backward()


@pytest.mark.parametrize("kind", [LocalLoss_DNI, LocalError_DNI, Linear_DNI])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_context_that_is_refused_changes_nothing(kind, way, steps):
    """The first pass, exact steps and other steps: also buffers are as before."""
    network = counting()
    net = DNI(network, dni_network=kind, context_size=3, **WAYS[way])
    for _ in range(steps):
        step(net)
    buffers = [*network.buffers()]
    before, stats = copy.deepcopy(network.state_dict()), net.stats()
    wrong = [Y[:5], None, Y + 7, Y.float()[:, None]]
    for context in wrong:
        with pytest.raises(ContextError), synthesizer_context(context):
            net(X)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name]), name
    assert all(a is b for a, b in zip(buffers, network.buffers(), strict=True))
    after = {name: (known.loss, known.updates) for name, known in net.stats().items()}
    expected = {name: (known.loss, known.updates) for name, known in stats.items()}
    if steps:
        assert repr(after) == repr(expected)
    step(net)
    assert network[2].calls == steps + 1


def test_an_earlier_pass_is_still_backpropagated_after_a_refused_one():
    """The statistics of BatchNorm are restored, and the graph that saved them is valid."""
    net = DNI(counting(), context_size=3)
    step(net)
    with synthesizer_context(Y):
        loss = net(X).square().mean()
    with pytest.raises(ContextError), synthesizer_context(Y[:5]):
        net(X)
    loss.backward()


def test_buffers_are_not_copied_while_shapes_stay_the_same(monkeypatch):
    made = []
    import pytorch_dni._refusal as refusal

    class Watched(refusal.BufferCopies):
        def __init__(self, network):
            made.append(1)
            super().__init__(network)

    monkeypatch.setattr(refusal, "BufferCopies", Watched)
    net = DNI(counting(), context_size=3)
    for _ in range(4):
        step(net)
    assert len(made) == 1
    with pytest.raises(ContextError):
        step(net, Y[:5])
    step(net)
    assert len(made) == 2


@pytest.mark.parametrize("options", [{}, {"eager": True}, {"layers": 2}])
def test_the_pass_on_example_input_leaves_buffers(options):
    network = counting()
    DNI(network, context_size=3, example_input=X, **options)
    assert network[2].calls == 0
    assert network[2].renewed == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_first_pass_without_synthesizers_leaves_buffers(way):
    def fail(name, module, output):
        raise RuntimeError("no")

    network = counting()
    before = copy.deepcopy(network.state_dict())
    net = DNI(network, dni_network=fail, **WAYS[way])
    with pytest.raises(DNIError, match=r"dni_network raised RuntimeError for '3' \(ReLU\): no"):
        net(X)
    assert not net.interfaces
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def drawing():
    return nn.Sequential(nn.Dropout(), counting())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [LocalLoss_DNI, Linear_DNI])
@pytest.mark.parametrize("steps", [0, 1])
def test_random_numbers_of_a_refused_pass_come_again(way, kind, steps):
    net = DNI(drawing(), dni_network=kind, context_size=3, **WAYS[way])
    for _ in range(steps):
        step(net)
    before = torch.get_rng_state()
    for context in (Y[:5], Y.float()[:, None]):
        with pytest.raises(ContextError), synthesizer_context(context):
            net(X)
        assert torch.equal(torch.get_rng_state(), before)


def test_random_numbers_that_lazy_layers_are_drawn_from_do_not_come_again():
    """The layers keep their parameters."""

    def fail(name, module, output):
        raise RuntimeError("no")

    network = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 3))
    before = torch.get_rng_state()
    with pytest.raises(DNIError, match="no"):
        DNI(network, dni_network=fail)(X)
    assert not torch.equal(torch.get_rng_state(), before)


def test_an_error_of_the_network_itself_leaves_its_random_numbers_drawn():
    """They are the user's to restore: the bare network draws them too."""
    network = nn.Sequential(nn.Dropout(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(6, 3))
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        DNI(network)(X)
    assert not torch.equal(torch.get_rng_state(), before)
