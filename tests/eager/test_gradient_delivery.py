"""Eager learning: parameters and inputs get their gradients in the backward pass."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, Linear_DNI
from tests.support.eager_nets import agree, nets, train
from tests.support.zoo import ZOO


def test_nothing_reaches_a_parameter_before_the_backward_pass():
    net = nets("mlp")[1]
    for _ in range(3):
        ZOO["mlp"].loss(net(ZOO["mlp"].input())).backward()
    net.zero_grad()
    loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()))
    assert all(p.grad is None for p in net.parameters())
    kept = [p.clone() for i in net.interfaces.values() for p in i.synthesizer.parameters()]
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    now = [p for i in net.interfaces.values() for p in i.synthesizer.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(kept, now, strict=True))


def test_hooks_of_parameters_run_once_and_change_what_arrives():
    made = nets("mlp", example_input=ZOO["mlp"].input())
    calls = []
    for net in made:
        for i, parameter in enumerate(net.parameters()):
            parameter.register_hook(lambda grad, i=i: calls.append(i) or grad * 2)
            parameter.register_post_accumulate_grad_hook(lambda p: calls.append("after"))
        torch.manual_seed(7)
        train(net, [ZOO["mlp"].input() for _ in range(5)], ZOO["mlp"].loss)
    assert calls.count("after") == 2 * 5 * 6
    assert all(calls.count(i) == 2 * 5 for i in range(6))
    agree(*made)


@pytest.mark.parametrize("options", [{"recursive": False}, {"layers": ["0", "4"]}])
def test_a_cut_at_the_very_end(options):
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(10)]
    torch.manual_seed(0)
    network, made = ZOO["mlp"].build(), []
    for eager in (False, True):
        torch.manual_seed(3)
        example = {} if "recursive" in options else {"example_input": inputs[0]}
        made.append(DNI(copy.deepcopy(network), eager=eager, **options, **example))
    for net in made:
        train(net, inputs, ZOO["mlp"].loss)
    agree(*made)


def test_a_parameter_that_is_returned_as_it_is():
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
            self.spread = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.head(torch.relu(self.body(x))), self.spread

    net = DNI(Policy(), layers="body", eager=True)
    for _ in range(2):
        mean, spread = net(torch.randn(4, 6))
        (mean * spread).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_frozen_parameters():
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(10)]
    made = nets("mlp", example_input=inputs[0])
    for net in made:
        for name, parameter in net.network.named_parameters():
            parameter.requires_grad_(name not in ("0.weight", "2.weight", "2.bias"))
        train(net, inputs, ZOO["mlp"].loss)
        assert net.network[2].weight.grad is None
    agree(*made)


def test_an_input_that_needs_a_gradient_gets_it():
    grads = []
    for net in nets("mlp", example_input=ZOO["mlp"].input()):
        torch.manual_seed(7)
        train(net, [ZOO["mlp"].input() for _ in range(5)], ZOO["mlp"].loss)
        leaf = torch.ones(5, 6, requires_grad=True)
        made_from = torch.full((5, 6), 0.5, requires_grad=True)
        net(leaf).sum().backward()
        made = made_from * 2
        made.register_hook(lambda grad: grad * 3)
        net(made).sum().backward()
        grads.append((leaf.grad, made_from.grad))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.any()


@pytest.mark.parametrize("eager", [False, True])
def test_the_first_lesson_sees_the_activation_before_it_is_changed_in_place(eager):
    seen = []

    class Sees(Linear_DNI):
        def forward(self, input, hidden):
            seen.append(input)
            return super().forward(input, hidden)

    torch.manual_seed(0)
    net = DNI(ZOO["functional"].build(), layers="first", eager=eager, dni_network=Sees,
              example_input=ZOO["functional"].input())  # fmt: skip
    x = ZOO["functional"].input()
    wanted = net.network.first.weight.detach() @ x.t() + net.network.first.bias.detach()[:, None]
    ZOO["functional"].loss(net(x)).backward()
    torch.testing.assert_close(seen[-1], wanted.t())


def test_autocast():
    made = nets("mlp", example_input=ZOO["mlp"].input())
    for net in made:
        torch.manual_seed(7)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(10):
            with torch.autocast("cpu", torch.bfloat16):
                loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    agree(*made)


@pytest.mark.parametrize("autocast", [False, True])
def test_parameters_shared_between_parts(autocast):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = (nn.Linear(6, 6) for _ in range(3))
            self.second.weight, self.second.bias = self.first.weight, self.first.bias

        def forward(self, x):
            return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))

    torch.manual_seed(0)
    network = Tied()
    results = []
    for eager in (False, True):
        torch.manual_seed(3)
        net = DNI(copy.deepcopy(network), eager=eager, example_input=torch.randn(4, 6))
        torch.manual_seed(4)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for _ in range(3):
                kept = [p.clone() for i in net.interfaces.values() for p in i.weights]
                out = net(torch.randn(4, 6))
                # The parts behind reach into those before by what they share; nothing learns yet.
                now = [p for i in net.interfaces.values() for p in i.weights]
                assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
                out.float().square().mean().backward()
        results.append([p.grad for p in net.parameters()])
        assert all(stats.updates == 3 for stats in net.stats().values())
    for ours, theirs in zip(*results, strict=True):
        # What autocast rounds is added up in another order.
        tolerance = {"rtol": 1e-2, "atol": 1e-4} if autocast else {}
        torch.testing.assert_close(ours, theirs, **tolerance)
