"""Ready-made synthesizers: shapes of outputs and their start at zero."""

import pytest
import torch
from torch import nn

from pytorch_dni import Conv2d_DNI, Linear_DNI, Linear_Sigmoid_DNI, RNN_DNI


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: Linear_DNI(7, 4, 5), (6, 7)),
        (lambda: Linear_DNI(7, 4, 5, num_layers=2, norm=None), (2, 3, 7)),
        (lambda: Linear_Sigmoid_DNI(7, 4, 5, norm="layer"), (6, 7)),
        (lambda: RNN_DNI(7, 4, 5, cell="gru", num_layers=2), (2, 3, 7)),
        (lambda: RNN_DNI(7, 4, 5, cell="relu"), (6, 7)),
        (lambda: RNN_DNI(7, 4, 5, cell="tanh"), (2, 3, 4, 7)),
        (lambda: RNN_DNI(7, 4, 5, batch_first=False), (2, 3, 7)),
        (lambda: Conv2d_DNI(7, 4, 5), (2, 7, 4, 4)),
        (lambda: Conv2d_DNI(7, 4, 5, norm="layer", kernel_size=1, num_layers=0), (2, 7, 4)),
        (lambda: Conv2d_DNI(7, 4, 5, norm=None), (2, 7, 2, 3, 4)),
    ],
)
def test_outputs_have_the_right_shape_and_start_at_zero(make, shape):
    net = make()
    x = torch.randn(shape)
    output, _ = net(x, None)
    assert output.shape == tuple(5 if size == 7 else size for size in shape)
    assert not output.any()
    output.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in net.parameters())


def test_linear_sigmoid_applies_a_sigmoid():
    net = Linear_Sigmoid_DNI(3, 4, 2, norm=None)
    nn.init.normal_(net.layers.last.weight)
    x = torch.randn(5, 3)
    expected = net.layers.last(torch.sigmoid(net.layers.first(x)))
    torch.testing.assert_close(net(x, None)[0], expected)
