"""The private names of PyTorch that individual gradients need do what their functions say."""

import torch
from torch import nn

from pytorch_dni.individual import _torch


def test_exchanged_parameters_are_those_that_the_module_uses():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    own = layer.weight
    replaced = _torch.exchange_parameters(layer, {"weight": torch.zeros(2, 3)})
    assert torch.equal(layer(x), layer.bias.expand(4, 2))
    assert replaced["weight"] is own
    _torch.exchange_parameters(layer, replaced)
    assert layer.weight is own


def test_a_view_shows_what_it_views():
    tensor = torch.zeros(4)
    assert _torch.viewed(tensor) is None
    assert _torch.viewed(tensor.view(2, 2)) is tensor


def test_the_next_creation_number_is_that_of_the_next_node():
    x = torch.zeros(2, requires_grad=True)
    number = _torch.next_creation_number()
    assert (x * 2).grad_fn._sequence_nr() == number
    assert _torch.next_creation_number() == number + 1


def test_a_backward_pass_tells_whether_it_keeps_its_graph_and_where_it_began():
    x, found = torch.zeros(2, requires_grad=True), []
    loss = (x * 2).sum()
    loss.grad_fn.register_prehook(
        lambda grads: found.append((_torch.keeps_graph(), _torch.backward_roots()))
    )
    loss.backward(retain_graph=True)
    loss.backward()
    assert [keeps for keeps, _ in found] == [True, False]
    assert all(len(roots) == 1 and roots[0] is loss for _, roots in found)
    assert _torch.backward_roots() == ()
