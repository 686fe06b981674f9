"""Local losses: their gradient is scaled to the true one's size, for all kinds of targets."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import ContextError, DNI, LocalLoss_DNI, synthesizer_context


class ByAutograd(LocalLoss_DNI):
    """Computes the gradient through autograd, as the base class does."""

    def loss_gradient(self, activation, target, gain):
        return super(LocalLoss_DNI, self).loss_gradient(activation, target, gain)


CASES = {
    "labels": ((6, 5), torch.randint(0, 3, (6,)), {}, {}),
    "ignored labels": ((6, 5), torch.tensor([0, 1, -100, 2, -100, 0]), {}, {}),
    "hidden layer": ((6, 5), torch.randint(0, 3, (6,)), {"num_layers": 1}, {}),
    "soft labels": ((6, 5), torch.rand(6, 3), {}, {}),
    "regression": ((6, 5), torch.randn(6, 3), {"loss": F.mse_loss}, {}),
    "sequence, one label": ((6, 4, 5), torch.randint(0, 3, (6,)), {}, {}),
    "sequence, labels": ((6, 4, 5), torch.randint(0, 3, (6, 4)), {}, {}),
    "time first, one label": ((4, 6, 5), torch.randint(0, 3, (6,)), {}, {}),
    "map, one label": ((6, 7, 8, 5), torch.randint(0, 3, (6,)), {"pool": 2}, {"cells": 4}),
    "map, labels": ((6, 7, 8, 5), torch.randint(0, 3, (6, 7, 8)), {"pool": None}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_those_of_the_loss(case):
    shape, target, params, extra = CASES[case]
    heads = []
    for kind in (LocalLoss_DNI, ByAutograd):
        torch.manual_seed(0)
        heads.append(kind(5 * extra.get("cells", 1), 4, 3, **params).double())
    activation = torch.randn(shape, dtype=torch.float64)
    target = target.double() if target.is_floating_point() else target
    with torch.no_grad():
        gain = torch.tensor(3.0, dtype=torch.float64)
        (explicit, own), (reference, same) = (
            head.loss_gradient(activation, target, gain) for head in heads
        )
    assert explicit.shape == activation.shape
    torch.testing.assert_close(explicit, reference)
    # The reference itself equals the definition.
    leaf = activation.clone().requires_grad_()
    heads[1].loss(leaf, target).backward()
    torch.testing.assert_close(3 * leaf.grad, reference)
    explicit_grads, reference_grads = dict(own), dict(same)
    for a, b in zip(*(head.parameters() for head in heads), strict=True):
        torch.testing.assert_close(explicit_grads[a], b.grad)
        torch.testing.assert_close(reference_grads[b], b.grad)


def test_targets_of_wrong_shape_or_value_are_errors():
    head = LocalLoss_DNI(5, 4, 3)
    for shape, target in [((6, 5), (5,)), ((6, 4, 5), (3,)), ((6, 4, 4, 5), (6, 4, 4))]:
        with pytest.raises(ContextError, match="one target for each"):
            head.loss(torch.randn(shape), torch.zeros(target, dtype=torch.int64))
    net = DNI(
        nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), dni_network=LocalLoss_DNI, context_size=3
    )
    for wrong in (torch.tensor([0, 3]), torch.tensor([0, -1])):
        with pytest.raises(ContextError, match="labels run from"), synthesizer_context(wrong):
            net(torch.randn(2, 4))
    with pytest.raises(ContextError, match="needs a context"):
        net(torch.randn(2, 4))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 2.0**16])
def test_the_synthetic_gradient_has_the_size_of_the_true_one(scale):
    """A loss scaled before the backward pass scales the gradients of all parts equally."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
    network.zero_grad()
    (F.cross_entropy(network(x), y) * scale).backward()
    true = network[0].weight.grad.norm()
    net = DNI(network, dni_network=LocalLoss_DNI, context_size=3)
    for _ in range(20):
        network.zero_grad()
        with synthesizer_context(y):
            loss = F.cross_entropy(net(x), y)
        (loss * scale).backward()
    assert 0.5 < network[0].weight.grad.norm() / true < 2
    assert net.stats()["1"].norm_ratio == pytest.approx(1, abs=1e-5)


def test_regression_targets_are_learned():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
    opt = torch.optim.Adam(network.parameters(), lr=1e-2)
    net = DNI(
        network,
        optim=opt,
        dni_network=LocalLoss_DNI,
        dni_params={"loss": F.mse_loss},
        context_size=2,
    )
    x = torch.randn(256, 4)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], 1)
    for _ in range(300):
        opt.zero_grad()
        with synthesizer_context(y):
            loss = F.mse_loss(net(x), y)
        loss.backward()
        opt.step()
    assert loss < 0.1 * y.square().mean()
