"""``stats()`` measures synthetic gradients against true ones."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    DNI,
    DNI_Network,
    DNIError,
    Linear_DNI,
    LocalLoss_DNI,
    synthesizer_context,
)


def test_stats_equal_their_definitions():
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    noise = torch.randn(8, 5)

    class Fixed(DNI_Network):
        normalize_target = False

        def forward(self, input, hidden):
            return noise, None

    x = torch.randn(8, 4)
    h = network[0](x).detach().requires_grad_()
    (expected,) = torch.autograd.grad(network[1](h).square().mean(), h)
    net = DNI(network, dni_network=lambda *a: Fixed(1, 1, 1))
    net(x).square().mean().backward()
    stats = net.stats()["0"]
    cosine = F.cosine_similarity(noise.flatten(), expected.flatten(), dim=0)
    assert stats.cosine == pytest.approx(cosine.item(), rel=1e-4)
    assert stats.norm_ratio == pytest.approx((noise.norm() / expected.norm()).item(), rel=1e-4)
    loss = (noise - expected).square().sum() / expected.square().sum()
    assert stats.loss == pytest.approx(loss.item(), rel=1e-4)
    assert stats.updates == 1


def example_cosines(net, loss):
    """Return the cosines of the first interface's last lesson, and the two gradients."""
    gradients = []
    hidden = []
    handle = net.network[0].register_forward_hook(lambda m, i, o: hidden.append(o))
    found = loss()
    handle.remove()
    hidden[0].grad_fn.register_prehook(lambda grads: gradients.append(grads[0]))
    found.backward()
    return net.stats()["0"].example_cosines, gradients[0]


def trained(kind, eager):
    """Return a wrapped network and its loss; the lesson of one step in eight is measured."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 3)))
    x, y = 4 * torch.randn(8, 4), torch.arange(8) % 3
    net = DNI(network, layers=["0"], dni_network=kind, context_size=3, eager=eager)

    def loss():
        with synthesizer_context(y):
            return F.cross_entropy(net(x), y)

    for _ in range(20):
        loss().backward()
    net.measure_examples()
    return net, x, y, loss


@pytest.mark.parametrize("kind", [Linear_DNI, LocalLoss_DNI])
def test_cosines_of_examples_equal_their_definition(kind):
    net, x, y, loss = trained(kind, False)
    cosines, synthetic = example_cosines(net, loss)
    hidden = F.linear(x, *net.network[0].parameters()).detach().requires_grad_()
    (true,) = torch.autograd.grad(F.cross_entropy(net.network[1](hidden), y), hidden)
    torch.testing.assert_close(cosines, F.cosine_similarity(synthetic, true, 1, 1e-20))
    assert cosines.std() > 0.01
    copied = pickle.loads(pickle.dumps(copy.deepcopy(net.stats()["0"])))
    assert torch.equal(copied.example_cosines, cosines)
    net.measure_examples(False)
    loss().backward()
    assert net.stats()["0"].example_cosines is None


@pytest.mark.parametrize("kind", [Linear_DNI, LocalLoss_DNI])
def test_cosines_of_examples_in_eager_learning_are_the_same(kind):
    found = []
    for eager in (False, True):
        net, _, _, loss = trained(kind, eager)
        for _ in range(5):
            loss().backward()
        found.append(net.stats()["0"].example_cosines)
    torch.testing.assert_close(*found)


def test_cosines_of_examples_change_nothing_else():
    nets = []
    for measures in (False, True):
        torch.manual_seed(0)
        net = DNI(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), unlock="update")
        with pytest.raises(DNIError, match="parts that are known"):
            net.measure_examples()
        net(torch.randn(8, 4)).square().mean().backward()
        net.measure_examples(measures)
        for _ in range(12):
            net(torch.randn(8, 4)).square().mean().backward()
        nets.append(net)
    (one,), (other,) = (net.stats().values() for net in nets)
    assert one == other
    for own, expected in zip(*(net.network.parameters() for net in nets), strict=True):
        assert torch.equal(own.grad, expected.grad)
