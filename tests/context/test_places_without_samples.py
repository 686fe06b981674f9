"""Contexts: cuts that were found where activations do not have the samples of the batch."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import ContextError, DNI, Linear_DNI, LocalError_DNI, synthesizer_context

BATCH, LENGTH = 4, 6


class Encoder(nn.Module):
    """Token and position embeddings, a block, and a pooler, as in BERT and GPT-2."""

    def __init__(self, position_first=False):
        super().__init__()
        self.token, self.position = nn.Embedding(11, 8), nn.Embedding(LENGTH, 8)
        self.inner, self.act = nn.Linear(8, 8), nn.ReLU()
        self.pooler, self.tanh, self.head = nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
        self.position_first = position_first

    def embed(self, ids):
        places = torch.arange(ids.shape[1])[None]
        if self.position_first:
            return self.position(places) + self.token(ids)
        return self.token(ids) + self.position(places)

    def forward(self, ids):
        h = self.embed(ids)
        h = h + self.act(self.inner(h))
        return self.head(self.tanh(self.pooler(h[:, 0])))


class RelativeBias(Encoder):
    """A bias ``(length, length, heads)`` from an embedding of distances, as in T5."""

    def __init__(self):
        super().__init__()
        self.position = nn.Embedding(2 * LENGTH, 1)

    def embed(self, ids):
        h, place = self.token(ids), torch.arange(ids.shape[1])
        bias = self.position(place[None] - place[:, None] + LENGTH)
        return bias.squeeze(-1).softmax(-1) @ h


class Mixture(Encoder):
    """A mixture of experts: each gets the tokens ``(tokens, features)`` that are sent to it."""

    def __init__(self):
        super().__init__()
        self.position = nn.Linear(8, 8)  # the first expert
        self.other = nn.Linear(8, 8)

    def embed(self, ids):
        h = self.token(ids)
        chosen, out = ids % 2 == 0, torch.zeros_like(h)
        out[chosen] = self.position(h[chosen])
        out[~chosen] = self.other(h[~chosen])
        return h + out


def first_position():
    return Encoder(position_first=True)


NETWORKS = {
    "absolute": Encoder,
    "absolute, first": first_position,
    "relative": RelativeBias,
    "mixture": Mixture,
}
WAYS = {
    "default": {},
    "exact every": {"exact_every": 2},
    "sparse": {"update_probability": 0.5},
    "linear": {"dni_network": Linear_DNI},
    "by error": {"dni_network": Linear_DNI, "dni_params": {"takes_error": True}},
    "example": {"example_input": torch.zeros(BATCH, LENGTH, dtype=torch.int64)},
}


def batch(step):
    draw = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 11, (BATCH, LENGTH), generator=draw)
    return ids, torch.randint(0, 3, (BATCH,), generator=draw)


def train(net, steps):
    for step in steps:
        ids, labels = batch(step)
        with synthesizer_context(labels):
            loss = F.cross_entropy(net(ids), labels)
        loss.backward()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", WAYS)
def test_they_are_passed_over_and_describe_says_why(name, way):
    network = NETWORKS[name]()
    net = DNI(network, context_size=3, **WAYS[way])
    train(net, range(4))
    cuts = [*net.interfaces]
    assert "position" not in cuts
    assert {"token", "act"} <= {*cuts}
    assert "passed over: 'position': a context of shape (4,) does not fit" in net.describe()
    assert "not reached" not in net.describe()
    assert network.position.weight.grad.abs().sum() > 0
    ids, labels = batch(0)
    with pytest.raises(ContextError, match="does not fit"), synthesizer_context(labels[:3]):
        net(ids)
    assert [*net.interfaces] == cuts


def test_the_result_equals_that_of_the_other_cuts_chosen_by_hand():
    network = Encoder()
    other = copy.deepcopy(network)
    found = DNI(network, context_size=3)
    chosen = DNI(other, context_size=3, layers=["token", "act", "tanh"])
    train(found, range(3))
    train(chosen, range(3))
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert [part.cut for part in found.audit(loss_of(9)).parts] == ["token", "act", "tanh", ""]


def loss_of(step):
    def closure(network):
        ids, labels = batch(step)
        with synthesizer_context(labels):
            return F.cross_entropy(network(ids), labels)

    return closure


@pytest.mark.parametrize("way", ["default", "example"])
def test_a_checkpoint_holds_them(way):
    nets = [DNI(Encoder(), context_size=3, **WAYS[way]) for _ in range(2)]
    train(nets[0], range(2))
    nets[1].load_state_dict(copy.deepcopy(nets[0].state_dict()))
    assert nets[1].describe() == nets[0].describe()
    for net in nets:
        net.zero_grad()
        train(net, range(2, 4))
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_an_expert_that_all_samples_reached_at_first_is_passed_over_later():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.expert, self.last = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = self.first(x)
            chosen = x[:, 0] > 0
            out = h.clone()
            out[chosen] = self.expert(h[chosen])
            return self.last(out)

    net = DNI(Experts(), context_size=3)
    x, labels = torch.rand(4, 2), torch.tensor([0, 1, 2, 0])
    for sign in (1, -1, 1):
        mixed = x * torch.tensor([[1.0], [sign], [1], [sign]])
        with synthesizer_context(labels):
            net(mixed).sum().backward()
    assert {n: s.updates for n, s in net.stats().items()} == {"first": 3}
    assert "passed over: 'expert': a context of shape (4,) does not fit" in net.describe()
    # A context of another kind is not a property of the place.
    with (
        pytest.raises(ContextError, match="does not fit"),
        synthesizer_context(labels[:, None].expand(4, 2)),
    ):
        net(x)


@pytest.mark.parametrize("kind", [LocalError_DNI, Linear_DNI])
def test_places_that_the_user_chose_are_errors(kind):
    net = DNI(Encoder(), dni_network=kind, context_size=3, layers=["token", "position"])
    ids, labels = batch(0)
    with (
        pytest.raises(ContextError, match=r"'position': a context of shape \(4,\)"),
        synthesizer_context(labels),
    ):
        net(ids)
