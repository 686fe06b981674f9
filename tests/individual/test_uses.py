"""Layers that are used several times, or share parameters, and graphs that are used again."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytorch_dni.individual import (
    individual_gradient_dots,
    individual_gradient_norms,
    individual_gradients,
)
from tests.support.individual import check_layer, loop, matrix


class Reused(nn.Module):
    """One layer used three times, with another number of positions each time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x).tanh()) + self.layer(x[:, None].tanh())[:, 0]


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer, too."""

    def __init__(self):
        super().__init__()
        self.embedding, self.middle = nn.Embedding(5, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 5)
        self.last.weight = self.embedding.weight

    def forward(self, x):
        return self.last(self.middle(self.embedding(x)).relu_())


class TiedAttention(nn.Module):
    """Attention used on itself and across, whose output weight another layer uses."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.other = nn.Linear(4, 4)
        self.other.weight = self.attention.out_proj.weight

    def forward(self, x):
        y = self.attention(x, x, x, need_weights=False)[0]
        return self.other(self.attention(y, x, x)[0])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_several_uses_of_one_layer(reduction):
    check_layer(Reused(), [torch.randn(3, 4)], reduction)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_weights_of_two_kinds_of_layers(reduction):
    check_layer(Tied(), [torch.randint(0, 5, (3, 6))], reduction)


def test_an_embedding_used_twice():
    embedding = nn.Embedding(7, 3)
    network = nn.Sequential(embedding)
    network.forward = lambda x, y: embedding(x).sum(1) * embedding(y).sum(1)
    check_layer(network, [torch.randint(0, 7, (4, 3)), torch.randint(0, 7, (4, 5))])


def test_attention_used_twice_and_sharing_a_weight():
    check_layer(TiedAttention(), [torch.randn(3, 5, 4)])


@pytest.mark.parametrize("same", [True, False])
def test_attention_used_twice_across_sequences(same):
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    network = nn.Sequential(attention)

    def forward(x, y):
        found = attention(x, y, y, need_weights=False)[0]
        keys = y.tanh()
        return attention(found, keys, keys if same else y.sin())[0]

    network.forward = forward
    check_layer(network, [torch.randn(3, 5, 4), torch.randn(3, 2, 4)])


def test_a_recurrent_layer_used_twice():
    layer = nn.GRU(3, 3, batch_first=True)
    network = nn.Sequential(layer)
    network.forward = lambda x: layer(layer(x)[0])[0]
    check_layer(network, [torch.randn(3, 4, 3)])


def test_inplace_activations():
    network = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(True), nn.Linear(6, 6), nn.LeakyReLU(0.1, True), nn.Linear(6, 2)
    )
    check_layer(network, [torch.randn(5, 4)])


def simple():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(5, 4)


def per_example(network, loss):
    return loop(network, loss, 5)


def test_each_backward_pass_gives_its_own_values():
    network, x = simple()
    first = per_example(network, lambda n: network(x[n]).sum())
    second = per_example(network, lambda n: network(x[n]).square().sum())
    with individual_gradients(network) as gradients, individual_gradient_norms(network) as norms:
        output = network(x)
        for expected, loss in ((first, output.sum()), (second, output.square().sum())):
            loss.backward(retain_graph=True)
            for name in expected:
                torch.testing.assert_close(gradients[name], expected[name])
            torch.testing.assert_close(norms.total, matrix(expected).norm(dim=1))


def test_forward_passes_at_once_that_end_in_one_backward_pass():
    network, x = simple()
    expected = matrix(per_example(network, lambda n: (network(x[n]) * network(-x[n])).sum()))
    with individual_gradient_norms(network) as norms, individual_gradient_dots(network) as dots:
        network(x)  # no loss depends on this one
        (network(x) * network(-x)).sum().backward()
    torch.testing.assert_close(norms.total, expected.norm(dim=1))
    torch.testing.assert_close(dots.total, expected @ expected.T)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_checkpointing(reentrant, grad):
    network, x = simple()
    expected = per_example(network, lambda n: network(x[n]).square().sum())
    with individual_gradients(network, grad=grad) as gradients:
        hidden = checkpoint(network[:2], x.requires_grad_(), use_reentrant=reentrant)
        network[2](hidden).square().sum().backward()
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name])


def test_a_backward_pass_that_failed_leaves_nothing_behind():
    network, x = simple()
    expected = per_example(network, lambda n: network(x[n]).sum())
    with individual_gradients(network) as gradients:
        hidden = network[:2](x)
        hidden.register_hook(lambda grad: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            network[2](hidden).square().sum().backward()
        network(x).sum().backward()
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name])


def test_frozen_parameters_and_unused_ones_are_left_out():
    network, x = simple()
    network.add_module("unused", nn.Linear(2, 2))
    network.forward = lambda x: network[2](network[1](network[0](x)))
    network[0].weight.requires_grad_(False)
    with individual_gradients(network) as gradients:
        network(x).sum().backward()
    assert {*gradients} == {"0.bias", "2.weight", "2.bias"}
    check_layer(network, [x])


def test_inputs_are_released_with_the_graph():
    network, _ = simple()
    with individual_gradient_norms(network) as norms:
        for keeps in (True, False):
            x = torch.randn(5, 4)
            seen = weakref.ref(x)
            loss = network(x).sum()
            if keeps:
                loss.backward()  # the loss stays
            else:
                del loss
            del x
            gc.collect()
            assert seen() is None
    assert len(norms) == 4


def test_hooks_of_the_user_that_change_gradients_count():
    network, x = simple()
    network[2].register_full_backward_pre_hook(lambda module, grad: (3 * grad[0],))
    expected = per_example(network, lambda n: network(x[n : n + 1]).sum())
    with individual_gradients(network) as gradients:
        network(x).sum().backward()
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name])


def test_second_derivatives_get_no_part_of_the_graph():
    network, x = simple()
    with individual_gradients(network) as gradients:
        loss = network(x).square().sum()
        loss.backward(create_graph=True)
    assert not any(gradient.requires_grad for gradient in gradients.values())


def test_autocast():
    torch.set_default_dtype(torch.float32)
    network, x = simple()
    for batch in (x, x[:1]):
        with (
            individual_gradients(network) as gradients,
            individual_gradient_norms(network, grad=False) as norms,
            torch.autocast("cpu", torch.bfloat16),
        ):
            network(batch).float().square().sum().backward()
    expected = per_example(network, lambda n: network(x[n]).square().sum())
    for name in expected:
        assert gradients[name].dtype == torch.float32
        torch.testing.assert_close(gradients[name][0], expected[name][0], rtol=0.1, atol=0.1)
    torch.testing.assert_close(norms.total, matrix(expected).norm(dim=1)[:1], rtol=0.1, atol=0.1)
