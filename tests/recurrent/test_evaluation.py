"""In evaluation and without gradients nothing is attached, and states keep their gradients."""

import copy

import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.hooks import forward_hooks
from tests.support.recurrent_zoo import Sequence


def test_evaluation_and_no_grad_change_nothing():
    network = Sequence(nn.LSTM)
    bare = copy.deepcopy(network)
    net = DNI(network)
    x = torch.randn(3, 5, 3)
    with torch.no_grad():
        _, state = net(x, None)
        net(x, state)
    assert not net.interfaces
    net(x, net(x, None)[1])[0].sum().backward()
    assert net.interfaces
    net.eval()
    assert not forward_hooks(network)
    expected, state = bare(*[x, bare(x)[1]])
    assert torch.equal(net(x, net(x)[1])[0], expected)
    # In evaluation gradients pass from window to window, as they do without the wrapper.
    begin = torch.zeros(2, 5, 4, requires_grad=True)
    _, (h, c) = net(x, (begin, begin))
    net(x, (h, c))[0].sum().backward()
    assert begin.grad.any()
    net.train()
    assert net.unwrap() is network
    assert not forward_hooks(network)
