"""Gradients: backpropagation's own where they are to be, the paper's mix elsewhere."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNI_Network, Linear_DNI
from tests.support.reference import Chain
from tests.support.zoo import ZOO


def gradients(network, example, x, steps_seed=1):
    torch.manual_seed(steps_seed)  # dropout
    network.zero_grad()
    loss = example.loss(network(x))
    loss.backward()
    return loss, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recurrent", [None, False])
@pytest.mark.parametrize("name", ZOO)
def test_lambda_one_is_backpropagation_bit_for_bit(name, recurrent):
    example = ZOO[name]
    bare = example.build()
    net = DNI(copy.deepcopy(bare), bp_lambda=1.0, recurrent=recurrent)
    for step in range(3):
        x = example.input()
        loss, expected = gradients(bare, example, x, step)
        wrapped_loss, found = gradients(net, example, x, step)
        assert torch.equal(loss, wrapped_loss)
        assert {f"network.{n}" for n in expected} == set(found)
        for n, grad in expected.items():
            assert torch.equal(grad, found[f"network.{n}"]), n
    assert net.interfaces
    # Without a state that is handed on, the future teaches nothing.
    spatial = recurrent is False or name not in ("lstm", "gru")
    assert all((stats.updates > 0) == spatial for stats in net.stats().values())


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("training", [True, False])
def test_forward_values_are_the_bare_networks(name, training):
    example = ZOO[name]
    bare = example.build().train(training)
    net = DNI(copy.deepcopy(bare)).train(training)
    for step in range(3):
        x = example.input()
        torch.manual_seed(step)
        expected = example.loss(bare(x))
        torch.manual_seed(step)
        loss = example.loss(net(x))
        assert torch.equal(expected, loss)
        if training:
            loss.backward()


class Oracle(DNI_Network):
    """Knows the true gradient, found by plain backpropagation beforehand."""

    normalize_target = False

    def __init__(self, truth):
        super().__init__(1, 1, 1)
        self.truth = truth

    def forward(self, input, hidden):
        return self.truth.pop(0), None


def true_gradients(network, example, x, sites):
    """By module name, the gradients of its output in the order of the backward pass."""
    grads = {name: [] for name in sites}
    network = copy.deepcopy(network)

    def note(name):
        def hook(module, args, output):
            tensor = output[0] if isinstance(output, tuple) else output
            if tensor.requires_grad:
                tensor.register_hook(lambda grad: grads[name].append(grad.clone()))

        return hook

    for name in sites:
        network.get_submodule(name).register_forward_hook(note(name))
    gradients(network, example, x)
    return grads


@pytest.mark.parametrize("name", [n for n in ZOO if n != "checkpointed"])
def test_an_oracle_gives_backpropagations_gradients(name):
    example = ZOO[name]
    network = example.build().double()
    make = example.input
    x = make().double() if make().is_floating_point() else make()
    probe = DNI(copy.deepcopy(network), example_input=x, recurrent=False)
    truth = true_gradients(network, example, x, list(probe.interfaces))
    _, expected = gradients(network, example, x)
    net = DNI(
        copy.deepcopy(network),
        layers=list(probe.interfaces),
        dni_network=lambda name, module, output: Oracle(truth[name]),
    )
    _, found = gradients(net, example, x)
    for n, grad in expected.items():
        torch.testing.assert_close(found[f"network.{n}"], grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bp_lambda", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("explicit", [True, False])
def test_mix_bootstrap_and_synthesizers_follow_the_paper(bp_lambda, explicit):
    class Autograd(Linear_DNI):
        def forward(self, input, hidden):
            return super().forward(input, hidden)

    network = nn.Sequential(
        nn.Linear(4, 5, bias=False),
        nn.Tanh(),
        nn.Linear(5, 5, bias=False),
        nn.Tanh(),
        nn.Linear(5, 2, bias=False),
    ).double()
    reference = Chain([network[i].weight.detach() for i in (0, 2, 4)], lr=0.3)
    net = DNI(
        network,
        dni_network=Linear_DNI if explicit else Autograd,
        dni_params={"num_layers": 0},
        bp_lambda=bp_lambda,
        grad_optim="sgd",
        grad_lr=0.3,
    )
    assert Linear_DNI(2, 2, 2).taped() is not None
    assert Autograd(2, 2, 2).taped() is None
    for _ in range(8):
        x = torch.randn(6, 4, dtype=torch.float64)
        expected = reference.gradients(x, bp_lambda)
        net.zero_grad()
        net(x).square().mean().backward()
        for i, grad in zip((0, 2, 4), expected, strict=True):
            torch.testing.assert_close(network[i].weight.grad, grad.t(), rtol=1e-9, atol=1e-14)
    for i, name in enumerate(("1", "3")):
        last = net.interfaces[name].synthesizer.layers.last
        torch.testing.assert_close(last.weight, reference.cuts[i].a.t(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(last.bias, reference.cuts[i].b, rtol=1e-9, atol=1e-12)


def test_lambda_may_be_a_function_of_the_step_and_be_changed():
    steps = []
    net = DNI(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)), bp_lambda=steps.append)
    net.bp_lambda = lambda step: steps.append(step) or 1.0
    for _ in range(3):
        net(torch.randn(4, 3)).sum().backward()
    assert steps == [0, 1, 2]
    net.bp_lambda = 0.5
    assert net.bp_lambda == 0.5
    for wrong in (-0.1, 1.1, "1", None, True):
        with pytest.raises(ValueError, match="bp_lambda"):
            net.bp_lambda = wrong


def test_all_cuts_of_a_step_are_given_the_same_step():
    steps = []
    network = nn.Sequential(*[nn.Linear(3, 3) for _ in range(5)])
    net = DNI(network, bp_lambda=lambda step: steps.append(step) or 0.0)
    net(torch.randn(4, 3)).sum().backward()
    assert set(steps) == {0}


def test_retained_graphs_and_second_derivatives_do_not_break():
    net = DNI(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)))
    out = net(torch.randn(4, 3)).sum()
    out.backward(retain_graph=True)
    out.backward()
    assert next(iter(net.stats().values())).updates == 2
    x = torch.randn(4, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    assert grad.shape == x.shape
    assert not any(i.moments.values.requires_grad for i in net.interfaces.values())
