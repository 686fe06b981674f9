"""The user's training loop works unchanged, whatever its order."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, Linear_DNI
from tests.support.reference import Chain
from tests.support.wrapped import fix_units, WAYS
from tests.support.zoo import batchnorm_inplace, mlp


def trained_parameters(order, build, way):
    torch.manual_seed(3)
    network = build()
    opt = torch.optim.Adam(network.parameters(), lr=0.01)
    net = DNI(network, optim=opt, **WAYS[way])
    for _ in range(10):
        order(net, opt, torch.randn(8, 6))
    return [*network.parameters()]


def zero_first(net, opt, x):
    opt.zero_grad()
    net(x).square().mean().backward()
    opt.step()


def zero_between(net, opt, x):
    loss = net(x).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()


def zero_last(net, opt, x):
    net(x).square().mean().backward()
    opt.step()
    opt.zero_grad(set_to_none=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", [zero_between, zero_last])
@pytest.mark.parametrize("build", [mlp, batchnorm_inplace])
def test_order_of_zero_grad_does_not_matter(order, build, way):
    expected = trained_parameters(zero_first, build, way)
    found = trained_parameters(order, build, way)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_accumulated_gradients_add_up(unlock):
    torch.manual_seed(0)
    network = mlp()
    x, y = torch.randn(4, 6), torch.randn(4, 6)
    net = DNI(network, grad_optim="sgd", grad_lr=1.0, unlock=unlock)
    for _ in range(3):
        net(x).square().mean().backward()
    # From here on synthesizers and their units are fixed.
    for group in net._rooms.learner.optimizer.param_groups:
        group["lr"] = 0.0
    fix_units(net)
    network.zero_grad()
    for data in (x, y):
        net(data).square().mean().backward()
        fix_units(net)
    together = [p.grad.clone() for p in network.parameters()]
    apart = []
    for data in (x, y):
        network.zero_grad()
        net(data).square().mean().backward()
        fix_units(net)
        apart.append([p.grad.clone() for p in network.parameters()])
    for total, first, second in zip(together, *apart, strict=True):
        assert total.any()
        torch.testing.assert_close(total, first + second)


def test_gradients_may_be_clipped_and_learning_rates_scheduled():
    layers = [nn.Linear(4, 5, bias=False), nn.Linear(5, 5, bias=False), nn.Linear(5, 2, bias=False)]
    network = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2]).double()
    reference = Chain([layer.weight.detach() for layer in layers], lr=0.3)
    opt = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)
    synthesizers = {"dni_network": Linear_DNI, "dni_params": {"num_layers": 0}}
    net = DNI(network, optim=opt, grad_optim="sgd", grad_lr=0.3, **synthesizers)
    for lr in (0.1, 0.05, 0.025):
        x = torch.randn(8, 4, dtype=torch.float64)
        expected = reference.gradients(x)
        expected_norm = torch.cat([grad.flatten() for grad in expected]).norm()
        for weight, grad in zip((reference.w1, reference.w2, reference.w3), expected, strict=True):
            weight -= lr * 0.01 * grad / (expected_norm + 1e-6)  # as PyTorch clips
        opt.zero_grad()
        net(x).square().mean().backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.01)
        assert norm > 0.01
        torch.testing.assert_close(norm, expected_norm, rtol=1e-9, atol=0)
        opt.step()
        schedule.step()
    for layer, weight in zip(layers, (reference.w1, reference.w2, reference.w3), strict=True):
        torch.testing.assert_close(layer.weight.detach(), weight.t(), rtol=1e-9, atol=1e-13)
    assert opt.param_groups[0]["lr"] == pytest.approx(0.1 / 8)


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_retained_graphs_and_second_derivatives_work(unlock):
    layers = [nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)]
    net = DNI(nn.Sequential(*layers), unlock=unlock)
    out = net(torch.randn(4, 3)).sum()
    out.backward(retain_graph=True)
    out.backward()
    assert next(iter(net.stats().values())).updates == 2
    x = torch.randn(4, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    assert grad.shape == x.shape
    assert not any(i.moments.values.requires_grad for i in net.interfaces.values())


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_modules_of_the_network_may_be_called_one_by_one(unlock):
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    net = DNI(network, unlock=unlock)
    for step in range(2):
        hidden = net.network[1](net.network[0](torch.randn(3, 4)))
        net.network[4](net.network[3](net.network[2](hidden))).sum().backward()
        assert net.stats()["1"].updates == step + 1
