"""Eager learning: cuts that do not separate the network are found and named."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError


class Skip(nn.Module):
    """A skip connection around the second layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.d(torch.relu(self.c(x + torch.relu(self.b(x)))))


class ReturnsHidden(nn.Module):
    """An activation before the cut is returned as well."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        return self.b(torch.tanh(hidden)), hidden


class CalledTwice(nn.Module):
    """One layer is called with two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.b(self.a(x[:, :3]) * self.a(x[:, 3:]))


class Tapped(nn.Module):
    """An activation of the first part is used after the cut, by an operation without weights."""

    def __init__(self):
        super().__init__()
        self.embedding, self.a, self.b = nn.Embedding(5, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = self.embedding(x)
        return self.b(self.a(x) + x)


INSEPARABLE = {
    "skip": (Skip, "b", lambda: torch.randn(5, 6), "'b' does not separate"),
    "output": (ReturnsHidden, "b", lambda: torch.randn(5, 6), "'b' does not separate"),
    "twice": (CalledTwice, "a", lambda: torch.randn(5, 6), "'a' comes twice"),
    "tapped": (Tapped, "a", lambda: torch.randint(5, (4,)), "'a' does not separate"),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", INSEPARABLE)
def test_an_inseparable_cut_is_named_before_anything_changes(name, late):
    build, layers, make, words = INSEPARABLE[name]
    network = build()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DNIError, match=words):
        if late:
            DNI(network, layers=layers, eager=True)(make())
        else:
            DNI(network, layers=layers, eager=True, example_input=make())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in network.parameters())


def test_a_connection_that_appears_later_is_found_then():
    network = Skip()
    network.forward = lambda x: network.d(network.c(network.b(network.a(x))))
    net = DNI(network, layers="b", eager=True)
    net(torch.randn(5, 6)).sum().backward()
    del network.forward
    net.zero_grad()
    with pytest.raises(DNIError, match="'b' does not separate"):
        net(torch.randn(5, 6))
    assert all(p.grad is None for p in net.parameters())
    network.forward = lambda x: network.d(network.c(network.b(network.a(x))))
    net(torch.randn(5, 6)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


class LateSkip(nn.Module):
    """With ``late``, the output of the first part, or a cast of it, is added to the result."""

    def __init__(self, cast):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))
        self.cast, self.late = cast, False

    def forward(self, x):
        x = self.a(x)
        x = x.double().float() if self.cast else x
        out = self.c(self.b(x))
        return out + x if self.late else out


@pytest.mark.parametrize("cast", [False, True])
def test_a_connection_around_the_next_cut_that_appears_later_is_found_then(cast):
    network = LateSkip(cast)
    net = DNI(network, layers=["a", "b"], eager=True)
    net(torch.randn(5, 6)).sum().backward()
    network.late = True
    with pytest.raises(DNIError, match="'b' does not separate"):
        net(torch.randn(5, 6))
