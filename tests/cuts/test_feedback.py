"""Learned feedback in a wrapped network follows its equations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, Feedback_DNI, synthesizer_context
from tests.support.feedback_reference import FeedbackChain, LocalErrorChain

LR = 0.3


class ByAutograd(Feedback_DNI):
    """The same synthesizer without the backward pass that is written by hand."""

    def forward(self, input, hidden, error=None):
        return super().forward(input, hidden, error)


def chain():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 5, bias=False), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(5, 2, bias=False)).double()


def wrapped(network, **options):
    return DNI(network, grad_optim="sgd", grad_lr=LR, **options)


def assert_steps_equal(network, net, expected, x):
    net.zero_grad()
    net(x).square().mean().backward()
    for i, grad in zip((0, 2, 4), expected, strict=True):
        torch.testing.assert_close(network[i].weight.grad, grad.t(), rtol=1e-9, atol=1e-13)


def assert_matrices_equal(net, reference):
    for name, cut in zip(("1", "3"), reference.cuts, strict=True):
        found = net.interfaces[name].synthesizer.direct.weight
        assert found.abs().sum() > 0
        torch.testing.assert_close(found, cut.d, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [None, ByAutograd])
def test_feedback_and_its_regression_follow_the_equations(kind):
    network = chain()
    reference = FeedbackChain([network[i].weight.detach() for i in (0, 2, 4)], LR)
    net = wrapped(network, dni_network=kind)
    for _ in range(8):
        x = torch.randn(6, 4, dtype=torch.float64)
        assert_steps_equal(network, net, reference.bootstrapped(x), x)
    assert_matrices_equal(net, reference)


def test_sparse_updates_give_parts_that_learn_the_gradients_of_the_error():
    network = chain()
    net = wrapped(network, update_probability=0.5, grad_steps=1)
    seen = set()
    for _ in range(30):
        net.zero_grad()
        net(torch.randn(6, 4, dtype=torch.float64)).square().mean().backward()
        seen.add(tuple(network[i].weight.grad is not None for i in (0, 2, 4)))
    # A part learns whether or not the parts after it do.
    assert len(seen) == 8


@pytest.mark.parametrize("every", [1, 3, lambda step: 3])
def test_exact_steps_and_steps_on_feedback_alone_follow_the_equations(every):
    network = chain()
    reference = FeedbackChain([network[i].weight.detach() for i in (0, 2, 4)], LR)
    net = wrapped(network, exact_every=every)
    for step in range(8):
        x = torch.randn(6, 4, dtype=torch.float64)
        if every == 1:
            expected = reference.bootstrapped(x)
        else:
            expected = (reference.feedback_alone if step % 3 else reference.exact)(x)
        assert_steps_equal(network, net, expected, x)
    assert_matrices_equal(net, reference)


@pytest.mark.parametrize("eager", [False, True])
def test_local_error_follows_the_equations(eager):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)
    ).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    net = wrapped(network, context_size=3, eager=eager, example_input=x)
    head = net.interfaces["1"].synthesizer.head.last
    start = head.weight.detach().clone(), head.bias.detach().clone()
    reference = LocalErrorChain([network[i].weight.detach() for i in (0, 2)], start, LR)
    for _ in range(8):
        x, labels = torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))
        net.zero_grad()
        with synthesizer_context(labels):
            output = net(x)
        F.cross_entropy(output, labels).backward()
        for i, grad in zip((0, 2), reference.gradients(x, labels), strict=True):
            torch.testing.assert_close(network[i].weight.grad, grad.t(), rtol=1e-9, atol=1e-13)
    found = net.interfaces["1"].synthesizer
    torch.testing.assert_close(found.feedback.direct.weight, reference.feedback.d)
    torch.testing.assert_close(head.weight.detach(), reference.a.t())
    assert reference.feedback.d.abs().sum() > 0


def test_an_oracle_for_the_error_gives_the_gradients_of_backpropagation():
    """With the transposed weights for the matrix, feedback in a linear network is exact."""
    torch.manual_seed(0)
    network = nn.Sequential(*[nn.Linear(4, 4, bias=False) for _ in range(3)]).double()
    w2, w3 = (network[i].weight.detach() for i in (1, 2))

    class Oracle(Feedback_DNI):
        normalize_target = False

        def forward(self, input, hidden, error=None):
            matrix = w3.t() if self.last else w2.t() @ w3.t()
            return (error * self.size) @ matrix.t(), None

    def build(name, module, output):
        oracle = Oracle(output.shape, output.shape)
        oracle.last = name == "1"
        return oracle

    x = torch.randn(6, 4, dtype=torch.float64)
    output = network(x)
    expected = torch.autograd.grad(output.square().mean(), [*network.parameters()])
    Oracle.size = (2 * output / output.numel()).square().mean().sqrt().item()
    net = DNI(network, dni_network=build, grad_lr=0.0)
    net(x).square().mean().backward()
    for parameter, grad in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-10, atol=1e-14)
