"""Per-example gradients of wrapped networks: from whichever gradient reaches the layers."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError, synthesizer_context
from pytorch_dni.individual import (
    individual_gradient_dots,
    individual_gradient_norms,
    individual_gradients,
)
from tests.support.individual import loop, matrix

WAYS = {
    "default": {},
    "at the layers": {"layers": ["0", "2"]},
    "update": {"unlock": "update"},
    "sparse": {"unlock": "update", "update_probability": 0.5},
    "labels": {"context_size": 2},
    "eager": {"unlock": "update", "eager": True},
    "eager, labels": {"context_size": 2, "eager": True},
    "every": {"exact_every": 2},
    "full": {"unlock": "full"},
}


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(True), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)
    )


X, Y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 2


def loss_of(net, x=X, y=Y):
    criterion = nn.CrossEntropyLoss(reduction="sum")
    if isinstance(net, DNI) and net.labels:
        with synthesizer_context(y):
            return criterion(net(x), y)
    return criterion(net(x), y)


class Labelled(DNI):
    """Remembers whether it takes labels."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.labels = "context_size" in options


@pytest.mark.parametrize("way", WAYS)
def test_they_sum_up_to_the_gradients_that_parameters_get(way):
    net = Labelled(network(), **WAYS[way])
    for _ in range(4):
        net.zero_grad()
        with (
            individual_gradients(net) as gradients,
            individual_gradient_norms(net) as norms,
            individual_gradient_dots(net) as dots,
        ):
            loss_of(net).backward()
        learned = {name for name, p in net.network.named_parameters() if p.grad is not None}
        assert {*gradients} == {*norms} == {*dots} == learned
        for name, parameter in net.network.named_parameters():
            if name in learned:
                torch.testing.assert_close(gradients[name].sum(0), parameter.grad)
        rows = matrix(gradients)
        torch.testing.assert_close(norms.total, rows.norm(dim=1))
        torch.testing.assert_close(dots.total, rows @ rows.T)


@pytest.mark.parametrize("way", ["default", "at the layers", "update", "labels"])
def test_at_lambda_one_they_are_those_of_backpropagation(way):
    net = Labelled(network(), bp_lambda=1.0, **WAYS[way])
    bare = network()
    expected = loop(bare, lambda n: loss_of(bare, X[n : n + 1], Y[n : n + 1]), len(X))
    for grad in (True, False):
        with individual_gradients(net, grad=grad) as gradients:
            loss_of(net).backward()
        for name in expected:
            torch.testing.assert_close(gradients[name], expected[name])


def test_a_cut_at_a_layer_gives_the_synthetic_gradient():
    net = Labelled(network(), layers=["2"], unlock="update")
    loss_of(net).backward()
    received = []
    with individual_gradients(net) as gradients:
        hidden = []
        handle = net.network[2].register_forward_hook(lambda m, i, o: hidden.append((i[0], o)))
        loss = loss_of(net)
        handle.remove()
        hidden[0][1].grad_fn.register_prehook(lambda grads: received.append(grads[0]))
        loss.backward()
    expected = torch.einsum("bo,bi->boi", received[0], hidden[0][0].detach())
    torch.testing.assert_close(gradients["2.weight"], expected)
    exact = network()
    true = loop(exact, lambda n: loss_of(exact, X[n : n + 1], Y[n : n + 1]), len(X))
    assert not torch.allclose(gradients["2.weight"], true["2.weight"])


def test_training_is_that_without_the_context():
    nets = [Labelled(network(), unlock="update", eager=True) for _ in range(2)]
    for _ in range(3):
        for number, net in enumerate(nets):
            net.zero_grad()
            if number:
                with individual_gradient_norms(net):
                    loss_of(net).backward()
            else:
                loss_of(net).backward()
        for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)


def test_eager_learning_without_summed_gradients_is_refused():
    net = Labelled(network(), unlock="update", eager=True)
    with pytest.raises(DNIError, match="eager=True computes gradients of parts"):
        individual_gradients(net, grad=False)
