"""Code that ``torch.compile`` made for other networks of the same class does not pass cuts over."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI
from tests.support.wrapped import assert_equal

X, Y = torch.randn(8, 6), torch.randint(0, 3, (8,))
CUTS = ["first.act", "second.act"]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.act = nn.Linear(6, 6), nn.Tanh()

    def forward(self, x):
        return self.act(self.layer(x))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = Block(), Block(), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.second(self.first(x)))


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(network):
    network.compile(backend="eager")
    return network


def compiled_in_parts(network):
    for part in (network.first, network.second):
        part.compile(backend="eager")
    return network


def plain(network):
    return network


def step(net):
    net.zero_grad()
    F.cross_entropy(net(X), Y).backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.1 * parameter.grad


def another_before(make):
    other = make(Blocks())
    step(other)
    return make(Blocks()), None


def itself_before(make):
    network = make(Blocks())
    F.cross_entropy(network(X), Y).backward()
    return network, None


def another_between(make):
    return make(Blocks()), make(Blocks())


def trained(order, make, options, passes=3):
    torch.manual_seed(0)
    network, other = order(make)
    net = DNI(network, layers=CUTS, **options)
    for _ in range(passes):
        step(net)
        if other is not None:
            step(other)
    net.eval()
    net(X)
    step(net.train())
    return net


@pytest.mark.parametrize(
    ("order", "make", "options"),
    [
        (another_before, compiled, {}),
        (another_before, compiled, {"eager": True}),
        (another_before, compiled_in_parts, {}),
        (itself_before, compiled, {}),
        (itself_before, compiled, {"exact_every": 2}),
        (another_between, compiled, {"unlock": "update"}),
    ],
)
def test_training_equals_that_without_compilation(order, make, options):
    found, expected = trained(order, make, options), trained(order, plain, options)
    assert_equal([*found.parameters()], [*expected.parameters()])
    updates = {name: stats.updates for name, stats in found.stats().items()}
    assert updates == {name: stats.updates for name, stats in expected.stats().items()}
    assert min(updates.values()) >= 2


def test_a_wrapped_network_that_is_compiled_as_a_function():
    """Another network of the class has run compiled before."""
    step(torch.compile(Blocks(), backend="eager"))
    net = DNI(torch.compile(Blocks(), backend="eager"))
    for _ in range(2):
        step(net)
    assert {stats.updates for stats in net.stats().values()} == {2}


def forwards(network):
    return {name: vars(m).get("forward") for name, m in network.named_modules()}


def test_modules_without_hooks_are_as_before():
    torch.compile(nn.Linear(1, 1), backend="eager")
    network = Blocks()
    network.second.act.forward = lambda x: x.tanh()
    before = forwards(network)
    net = DNI(network, layers=CUTS)
    for _ in range(2):
        step(net)
    assert forwards(network)["first.act"]
    net.eval()
    assert forwards(network) == before
    step(net.train())
    net.unwrap()
    assert forwards(network) == before


@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_learn_by_themselves(how):
    torch.compile(nn.Linear(1, 1), backend="eager")
    net = DNI(Blocks(), layers=CUTS)
    for _ in range(2):
        step(net)
    copied = how(net)
    before = [parameter.clone() for parameter in net.parameters()]
    step(copied)
    assert_equal([*net.parameters()], before)
    step(net)
    assert_equal([*net.parameters()], [*copied.parameters()])
    assert not any(forwards(copied.unwrap()).values())


def test_layers_that_are_no_modules_when_they_run_give_a_warning():
    class Functions(Blocks):
        def forward(self, x):
            for block in (self.first, self.second):
                x = block.act.forward(block.layer.forward(x))
            return self.last.forward(x)

    net = DNI(Functions())
    with pytest.warns(UserWarning, match="no cut yet: in a training forward pass of Functions no"):
        net(X).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(X).sum().backward()
