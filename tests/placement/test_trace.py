"""The pass that places cuts: it shows the graph of training, and changes nothing."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, DNIError, SelectionError
from tests.support.wrapped import ALL_WAYS, assert_equal

X, Y = torch.randn(6, 8), torch.randint(0, 3, (6,))


class Auxiliary(nn.Module):
    """A head beside the last layers, in training alone, as in Inception networks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.body = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.head, self.side = nn.Linear(16, 3), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        output = self.head(self.body(x))
        return (output, self.side(x)) if self.training else output


def step(net):
    output, side = net(X)
    (F.cross_entropy(output, Y) + F.cross_entropy(side, Y)).backward()


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("example", [False, True])
def test_branches_of_training_are_seen(way, example):
    net = DNI(Auxiliary(), layers=2, example_input=X if example else None, **ALL_WAYS[way])
    for _ in range(2):
        step(net)
    assert [part.cut for part in net._rooms.cuts.parts] == ["stem", ""]


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("evaluation", [False, True])
def test_a_refusal_changes_nothing(way, evaluation):
    network = Auxiliary()
    before = copy.deepcopy(network.state_dict())
    net = DNI(network, layers=3, **ALL_WAYS[way])
    with pytest.raises(SelectionError, match="2 parts at most"):
        net(X)
    net.unwrap()
    assert_equal([*network.state_dict().values()], [*before.values()])
    with pytest.raises(SelectionError, match="2 parts at most"):
        DNI(network.train(not evaluation), layers=3, example_input=X, **ALL_WAYS[way])
    assert network.training is not evaluation
    assert_equal([*network.state_dict().values()], [*before.values()])


def test_a_refusal_of_named_cuts_changes_nothing():
    network = Auxiliary()
    before = copy.deepcopy(network.state_dict())
    net = DNI(network, layers=["body.1"], eager=True)
    with pytest.raises(DNIError, match=r"'body.1' does not separate"):
        net(X)
    assert_equal([*network.state_dict().values()], [*before.values()])


class Detection(nn.Module):
    """Takes targets and returns losses in training, and a list of other records in evaluation."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*Auxiliary().stem, nn.Linear(8, 8), nn.Tanh())
        self.classes, self.boxes = nn.Linear(8, 3), nn.Linear(8, 4)

    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("targets are missing")
        x = self.body(x)
        classes, boxes = self.classes(x), self.boxes(x)
        if not self.training:
            return [{"label": row.argmax()} for row in classes]
        return {"classes": F.cross_entropy(classes, targets), "boxes": boxes.square().mean()}


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("example", [False, True])
def test_networks_that_return_losses_in_training_are_placed(way, example):
    given = (X, Y) if example else None
    net = DNI(Detection(), layers=3, example_input=given, **ALL_WAYS[way])
    for _ in range(2):
        sum(net(X, Y).values()).backward()
    assert [part.cut for part in net._rooms.cuts.parts] == ["body.2", "body", ""]


def test_an_error_of_the_network_is_its_own_where_evaluation_fails_too():
    with pytest.raises(ValueError, match="targets are missing"):
        DNI(Detection(), layers=2, example_input=(X.reshape(-1),))
    net = DNI(Detection(), layers=2)
    with pytest.raises(ValueError, match="targets are missing"):
        net(X)
    assert not net._rooms.cuts.placed


def test_an_example_that_evaluation_alone_takes_is_run_in_evaluation():
    net = DNI(Auxiliary(), example_input=X[:1])  # BatchNorm needs two samples in training
    assert [part.cut for part in net._rooms.cuts.parts] == ["stem.2", "body.1", "body.3", ""]


class Counting(nn.Module):
    """Draws random numbers, counts its calls, and changes buffers and its input in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(8), persistent=False)
        self.register_buffer("seen", torch.zeros(0))
        self.steps = nn.Sequential(
            nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)
        )

    def forward(self, x):
        x.add_(1)
        self.calls.data.add_(1)  # not counted as a change of the tensor
        self.last = x.detach().mean(0)
        self.seen.resize_(2).fill_(random.random())
        return self.steps(x)


@pytest.mark.parametrize("options", [{"layers": 2}, {"eager": True}, {"example_input": True}])
@pytest.mark.parametrize("way", ALL_WAYS)
def test_the_trace_changes_nothing(way, options):
    options = {**ALL_WAYS[way], **options}
    if options.get("eager"):
        options.pop("unlock", None)
        options.pop("exact_every", None)
    results = []
    torch.manual_seed(0)
    network = Counting()
    for wrap in (False, True):
        net = copy.deepcopy(network)
        x = X.clone()
        random.seed(0)
        torch.manual_seed(1)
        if wrap:
            if options.get("example_input"):
                options["example_input"] = x
            net = DNI(net, **options)
        output = net(x)
        bare = net.network if wrap else net
        results.append([output, x, *bare.buffers(), torch.tensor(random.random()), torch.rand(2)])
    assert_equal(*results)
    assert results[1][2] == 1


@pytest.mark.parametrize("layers", [2, None])
def test_states_of_windows_do_not_see_the_trace(layers):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.rnn, self.last = nn.Linear(8, 8), nn.GRU(8, 8), nn.Linear(8, 3)

        def forward(self, x, state=None):
            output, state = self.rnn(self.first(x), state)
            return self.last(output), state

    torch.manual_seed(0)
    net = DNI(Windows(), layers=layers, recurrent=True, unlock="update")
    state = None
    for _ in range(3):
        output, state = net(torch.randn(4, 5, 8), state)
        output.square().mean().backward()
    assert net.stats()["rnn.state"].updates == 2
