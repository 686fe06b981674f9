"""Eager learning: parameters and inputs get their gradients in the backward pass."""

import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.eager_nets import assert_same_training, default_and_eager, train
from tests.support.zoo import ZOO


def test_parameters_get_gradients_only_in_the_backward_pass():
    net = default_and_eager("mlp")[1]
    for _ in range(3):
        ZOO["mlp"].loss(net(ZOO["mlp"].input())).backward()
    net.zero_grad()
    loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()))
    assert all(p.grad is None for p in net.parameters())
    before = [p.clone() for i in net.interfaces.values() for p in i.synthesizer.parameters()]
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    now = [p for i in net.interfaces.values() for p in i.synthesizer.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, now, strict=True))


def test_hooks_of_parameters_run_once_and_change_the_gradient():
    nets = default_and_eager("mlp", example_input=ZOO["mlp"].input())
    calls = []
    for net in nets:
        for i, parameter in enumerate(net.parameters()):
            parameter.register_hook(lambda grad, i=i: calls.append(i) or grad * 2)
            parameter.register_post_accumulate_grad_hook(lambda p: calls.append("after"))
        torch.manual_seed(7)
        train(net, [ZOO["mlp"].input() for _ in range(5)], ZOO["mlp"].loss)
    assert calls.count("after") == 2 * 5 * 6
    assert all(calls.count(i) == 2 * 5 for i in range(6))
    assert_same_training(*nets)


def test_a_parameter_that_the_network_returns_gets_its_gradient():
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


def test_an_input_that_requires_a_gradient_gets_it():
    grads = []
    for net in default_and_eager("mlp", example_input=ZOO["mlp"].input()):
        torch.manual_seed(7)
        train(net, [ZOO["mlp"].input() for _ in range(5)], ZOO["mlp"].loss)
        leaf = torch.ones(5, 6, requires_grad=True)
        source = torch.full((5, 6), 0.5, requires_grad=True)
        net(leaf).sum().backward()
        product = source * 2
        product.register_hook(lambda grad: grad * 3)
        net(product).sum().backward()
        grads.append((leaf.grad, source.grad))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.any()
