"""Sparse updates: each part learns in its own share of the steps."""

import copy
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from pytorch_dni import (
    BasicSynthesizer,
    DNI,
    DNIError,
    LocalLoss_DNI,
    synthesizer_context,
    SynthesizerError,
)
from tests.support.zoo import relu_mlp, ZOO


def grads(network):
    return [p.grad is not None for p in network.parameters()]


def test_each_part_learns_in_its_share_of_the_steps_by_itself():
    torch.manual_seed(2)
    network, x = relu_mlp(), torch.randn(4, 6)
    net = DNI(network, update_probability=0.25, example_input=x, grad_steps=1)
    counts, together = Counter(), Counter()
    for _ in range(800):
        net.zero_grad()
        net(x).square().sum().backward()
        parts = tuple(grads(network)[::2])
        counts.update(i for i, learned in enumerate(parts) if learned)
        together[parts] += 1
    assert all(160 < counts[i] < 240 for i in range(4)), counts
    assert len(together) == 16  # in any combination
    # A synthesizer learns where the part behind it does.
    updates = [stats.updates for stats in net.stats().values()]
    assert updates == [counts[1], counts[2], counts[3]]


def test_activations_are_learned_where_the_part_in_front_learns():
    network, x = relu_mlp(1), torch.randn(4, 6)
    net = DNI(network, update_probability=0.4, unlock="full", example_input=x)
    learned = 0
    for _ in range(50):
        net.zero_grad()
        net(x).square().sum().backward()
        learned += network[0].weight.grad is not None
    assert 5 < net.stats("forward")["1"].updates == learned < 45


def test_steps_count_where_no_cut_is_reached():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.cut, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            self.cut(x)
            return self.last(x)

    network = Branches()
    net = DNI(network, layers="cut", update_probability=0.2, example_input=torch.randn(4, 6))
    learned = 0
    for _ in range(100):
        net.zero_grad()
        net(torch.randn(4, 6)).sum().backward()
        learned += network.last.weight.grad is not None
    assert 5 < learned < 45


def test_a_part_learns_though_the_one_behind_it_does_not():
    torch.manual_seed(2)
    network, x = relu_mlp(1), torch.randn(4, 6)
    net = DNI(network, update_probability=0.5, example_input=x)
    for _ in range(20):
        net(x).square().sum().backward()
    seen = set()
    for _ in range(40):
        net.zero_grad()
        net(x).square().sum().backward()
        front, behind = grads(network)[::2]
        seen.add((front, behind))
        if front:
            assert network[0].weight.grad.any()
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


def test_gradients_of_parts_that_learn_are_those_of_the_dense_way():
    """With the same synthesizers: all else stands still."""
    network = relu_mlp().double()
    twin = copy.deepcopy(network)
    net = DNI(
        network, update_probability=0.5, example_input=torch.randn(2, 6).double(), grad_lr=0.0
    )
    dense = DNI(twin, example_input=torch.randn(2, 6).double(), grad_lr=0.0)
    for interfaces in zip(net.interfaces.values(), dense.interfaces.values(), strict=True):
        last = interfaces[0].synthesizer.layers.last
        nn.init.normal_(last.weight)
        interfaces[1].synthesizer.load_state_dict(interfaces[0].synthesizer.state_dict())
        for interface in interfaces:
            interface.scale.load_state_dict({"mean_square": 4.0, "count": 10**9})
    checked = 0
    for _ in range(12):
        x = torch.randn(4, 6).double()
        for one in (net, dense):
            one.zero_grad()
            one(x).square().sum().backward()
            for interface in one.interfaces.values():
                interface.scale.load_state_dict({"mean_square": 4.0, "count": 10**9})
        pairs = zip(network.parameters(), dense.network.parameters(), strict=True)
        for ours, theirs in pairs:
            if ours.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
                checked += 1
    assert checked > 20


def test_draws_come_from_the_seed_and_leave_the_users_random_numbers_alone():
    def run(seed):
        torch.manual_seed(seed)
        network = relu_mlp()
        net = DNI(network, update_probability=0.5, example_input=torch.zeros(2, 6))
        learned = []
        for _ in range(12):
            net.zero_grad()
            net(torch.ones(2, 6)).sum().backward()
            learned.append(tuple(grads(network)))
        return learned, torch.rand(3)

    assert run(1)[0] == run(1)[0]
    assert run(1)[0] != run(2)[0]
    rest = run(1)[1]
    torch.manual_seed(1)
    relu_mlp()
    assert torch.equal(rest, torch.rand(3))


@pytest.mark.parametrize("name", ZOO)
def test_sparse_updates_on_every_architecture(name):
    example = ZOO[name]
    torch.manual_seed(0)
    bare = example.build()
    net = DNI(copy.deepcopy(bare), update_probability=0.5, recurrent=False)
    for step in range(6):
        x = example.input()
        torch.manual_seed(step)
        expected = example.loss(bare(x))
        torch.manual_seed(step)
        net.zero_grad()
        loss = example.loss(net(x))
        assert torch.equal(loss, expected)
        loss.backward()
    assert any(stats.updates for stats in net.stats().values())


class Pair(NamedTuple):
    first: torch.Tensor
    second: object


@dataclass
class Record:
    logits: torch.Tensor
    count: int = 3


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: (t, [t * 2], 5),
        lambda t: {"a": t, "b": None},
        lambda t: Pair(t, (t,)),
        lambda t: Record(t),
    ],
)
def test_the_last_part_sleeps_whatever_the_network_returns(wrap):
    class Returns(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = relu_mlp(1)

        def forward(self, x):
            return wrap(self.inner(x))

    def tensors(output):
        if isinstance(output, torch.Tensor):
            return [output]
        if isinstance(output, Record):
            return [output.logits]
        children = output.values() if isinstance(output, dict) else output
        if not isinstance(output, (dict, tuple, list)):
            return []
        return [t for child in children for t in tensors(child)]

    network, x = Returns(), torch.randn(3, 6)
    net = DNI(network, update_probability=0.3, example_input=x)
    slept = 0
    for _ in range(30):
        net.zero_grad()
        output = net(x)
        assert type(output) is type(network.eval()(x))
        network.train()
        sum(t.sum() for t in tensors(output)).backward()
        slept += network.inner[2].weight.grad is None
    assert 10 < slept < 30


def test_local_losses_learn_while_the_part_behind_sleeps():
    torch.manual_seed(0)
    network = relu_mlp(1)
    net = DNI(
        network,
        dni_network=LocalLoss_DNI,
        context_size=2,
        update_probability=0.5,
        example_input=torch.zeros(4, 6),
        grad_steps=1,
    )
    head = net.interfaces["1"].synthesizer.head.last.weight
    alone = 0
    for _ in range(30):
        before = head.clone()
        net.zero_grad()
        with synthesizer_context(torch.tensor([0, 1, 1, 0])):
            net(torch.randn(4, 6)).sum().backward()
        front, behind = grads(network)[::2]
        assert torch.equal(before, head) == (not front and not behind)
        assert head.grad is None
        alone += front and not behind
    assert alone


def test_synthesizers_take_more_steps_where_updates_are_sparse():
    def after(**options):
        torch.manual_seed(0)
        net = DNI(
            relu_mlp(1), example_input=torch.zeros(4, 6), grad_optim="sgd", grad_lr=0.1, **options
        )
        torch.manual_seed(1)
        net(torch.randn(4, 6)).square().sum().backward()
        assert net.stats()["1"].updates == net.interfaces["1"].scale.count == 1
        return net.interfaces["1"].synthesizer.layers.last.bias.detach()

    one, two, three = (after(grad_steps=n) for n in (1, 2, 3))
    assert torch.equal(after(), one)
    assert one.norm() < two.norm() < three.norm()
    for probability, steps in ((1.0, 1), (0.5, 2), (0.1, 10), (0.01, 10)):
        net = DNI(relu_mlp(1), update_probability=probability)
        assert net._cuts.learner.repeats == steps
    local = {"dni_network": LocalLoss_DNI, "context_size": 2}
    assert DNI(relu_mlp(1), update_probability=0.1, **local)._cuts.learner.repeats == 1
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(SynthesizerError, match="grad_steps"):
            DNI(relu_mlp(1), grad_steps=wrong)


def test_repeated_steps_are_those_on_the_same_lesson():
    """Against a loop of gradient steps in float64."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False)
    ).double()
    net = DNI(
        network,
        dni_network=BasicSynthesizer,
        example_input=torch.zeros(5, 3).double(),
        grad_optim="sgd",
        grad_lr=0.2,
        grad_steps=4,
    )
    a, b = torch.zeros(4, 4).double(), torch.zeros(4).double()
    x = torch.randn(5, 3).double()
    net(x).square().sum().backward()
    h = torch.tanh(x @ network[0].weight.t())
    true = 2 * h @ network[2].weight.t() @ network[2].weight
    target = true / true.square().mean().sqrt()
    for _ in range(4):
        error = 2 * (h @ a + b - target) / target.numel()
        a, b = a - 0.2 * h.t() @ error, b - 0.2 * error.sum(0)
    last = net.interfaces["1"].synthesizer.layers.last
    torch.testing.assert_close(last.weight.detach(), a.t(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(last.bias.detach(), b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrong", [0, -0.1, 1.1, "1", None, True])
def test_wrong_probabilities(wrong):
    with pytest.raises(DNIError, match="update_probability"):
        DNI(relu_mlp(), update_probability=wrong)
