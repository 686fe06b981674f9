"""Sparse updates: each part learns in its own share of the steps."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError, LocalError_DNI, LocalLoss_DNI, synthesizer_context
from tests.support.wrapped import fix_units
from tests.support.zoo import relu_mlp, ZOO


def have_gradients(network):
    return [p.grad is not None for p in network.parameters()]


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_parts_learn_independently_with_the_given_probability(unlock):
    torch.manual_seed(2)
    network, x = relu_mlp(), torch.randn(4, 6)
    net = DNI(network, update_probability=0.25, example_input=x, grad_steps=1, unlock=unlock)
    counts, together = Counter(), Counter()
    for _ in range(800):
        net.zero_grad()
        net(x).square().sum().backward()
        parts = tuple(have_gradients(network)[::2])
        counts.update(i for i, learned in enumerate(parts) if learned)
        together[parts] += 1
    assert all(160 < counts[i] < 240 for i in range(4)), counts
    assert len(together) == 16  # Every combination of learning parts occurs.
    # A synthesizer learns when the part after it does.
    updates = [stats.updates for stats in net.stats().values()]
    assert updates == [counts[1], counts[2], counts[3]]


def test_activations_are_learned_when_the_earlier_part_learns():
    network, x = relu_mlp(1), torch.randn(4, 6)
    net = DNI(network, update_probability=0.4, unlock="full", example_input=x)
    learned = 0
    for _ in range(50):
        net.zero_grad()
        net(x).square().sum().backward()
        learned += network[0].weight.grad is not None
    assert 5 < net.stats("forward")["1"].updates == learned < 45


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_steps_that_reach_no_cut_count(unlock):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.cut, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            self.cut(x)
            return self.last(x)

    network = Branches()
    options = {"layers": "cut", "update_probability": 0.2, "unlock": unlock}
    net = DNI(network, example_input=torch.randn(4, 6), **options)
    learned = 0
    for _ in range(100):
        net.zero_grad()
        net(torch.randn(4, 6)).sum().backward()
        learned += network.last.weight.grad is not None
    assert 5 < learned < 45


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_a_part_learns_while_the_later_part_does_not(unlock):
    torch.manual_seed(2)
    network, x = relu_mlp(1), torch.randn(4, 6)
    net = DNI(network, update_probability=0.5, example_input=x, unlock=unlock)
    for _ in range(20):
        net(x).square().sum().backward()
    seen = set()
    for _ in range(40):
        net.zero_grad()
        net(x).square().sum().backward()
        earlier, later = have_gradients(network)[::2]
        seen.add((earlier, later))
        if earlier:
            assert network[0].weight.grad.any()
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_gradients_of_learning_parts_equal_those_without_sparse_updates(unlock):
    """Synthesizers, their scales and the network are fixed."""
    network = relu_mlp().double()
    twin = copy.deepcopy(network)
    options = {"example_input": torch.randn(2, 6).double(), "grad_lr": 0.0, "unlock": unlock}
    net = DNI(network, update_probability=0.5, **options)
    dense = DNI(twin, **options)
    for interfaces in zip(net.interfaces.values(), dense.interfaces.values(), strict=True):
        for parameter in interfaces[0].synthesizer.parameters():
            nn.init.normal_(parameter)
        interfaces[1].synthesizer.load_state_dict(interfaces[0].synthesizer.state_dict())
    for one in (net, dense):
        fix_units(one)
    checked = 0
    for _ in range(12):
        x = torch.randn(4, 6).double()
        for one in (net, dense):
            one.zero_grad()
            one(x).square().sum().backward()
            fix_units(one)
        pairs = zip(network.parameters(), dense.network.parameters(), strict=True)
        for ours, theirs in pairs:
            if ours.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
                checked += 1
    assert checked > 20


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_draws_follow_the_seed_and_do_not_change_the_users_random_numbers(unlock):
    def run(seed):
        torch.manual_seed(seed)
        network = relu_mlp()
        example = torch.zeros(2, 6)
        net = DNI(network, update_probability=0.5, example_input=example, unlock=unlock)
        learned = []
        for _ in range(12):
            net.zero_grad()
            net(torch.ones(2, 6)).sum().backward()
            learned.append(tuple(have_gradients(network)))
        return learned, torch.rand(3)

    assert run(1)[0] == run(1)[0]
    assert run(1)[0] != run(2)[0]
    rest = run(1)[1]
    torch.manual_seed(1)
    relu_mlp()
    assert torch.equal(rest, torch.rand(3))


@pytest.mark.parametrize("unlock", ["backward", "update"])
@pytest.mark.parametrize("name", ZOO)
def test_every_architecture_trains(name, unlock):
    example = ZOO[name]
    torch.manual_seed(0)
    bare = example.build()
    net = DNI(copy.deepcopy(bare), update_probability=0.5, recurrent=False, unlock=unlock)
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


@pytest.mark.parametrize("kind", [LocalLoss_DNI, LocalError_DNI])
def test_local_heads_learn_while_the_later_part_does_not(kind):
    torch.manual_seed(0)
    network = relu_mlp(1)
    net = DNI(
        network,
        dni_network=kind,
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
        earlier, later = have_gradients(network)[::2]
        assert torch.equal(before, head) == (not earlier and not later)
        assert head.grad is None
        alone += earlier and not later
    assert alone


@pytest.mark.parametrize("wrong", [0, -0.1, 1.1, "1", None, True])
def test_wrong_probabilities_are_errors(wrong):
    with pytest.raises(DNIError, match="update_probability"):
        DNI(relu_mlp(), update_probability=wrong)
