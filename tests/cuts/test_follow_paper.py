"""Gradients at cuts follow the equations of the paper."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNI_Network, Linear_DNI
from tests.support.reference import Chain
from tests.support.wrapped import gradients
from tests.support.zoo import ZOO


class Exact_DNI(DNI_Network):
    """Returns the true gradients, which plain backpropagation computed beforehand."""

    normalize_target = False

    def __init__(self, truth):
        super().__init__(1, 1, 1)
        self.truth = truth

    def forward(self, input, hidden):
        return self.truth.pop(0), None


def true_gradients(network, example, x, sites):
    """Return the gradients of each module's output, in the order of the backward pass."""
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
def test_exact_synthesizers_give_the_gradients_of_backpropagation(name):
    example = ZOO[name]
    network = example.build().double()
    make = example.input
    x = make().double() if make().is_floating_point() else make()
    probe = DNI(copy.deepcopy(network), example_input=x, recurrent=False, unlock="update")
    truth = true_gradients(network, example, x, list(probe.interfaces))
    _, expected = gradients(network, example, x)
    net = DNI(
        copy.deepcopy(network),
        layers=list(probe.interfaces),
        dni_network=lambda name, module, output: Exact_DNI(truth[name]),
        unlock="update",
    )
    _, found = gradients(net, example, x)
    for n, grad in expected.items():
        torch.testing.assert_close(found[f"network.{n}"], grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bp_lambda", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("explicit", [True, False])
def test_mix_bootstrap_and_regression_follow_the_paper(bp_lambda, explicit):
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
        unlock="update",
        bp_lambda=bp_lambda,
        grad_optim="sgd",
        grad_lr=0.3,
    )
    assert Linear_DNI(2, 2, 2).as_mlp() is not None
    assert Autograd(2, 2, 2).as_mlp() is None
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
