"""Perceptrons: the explicit backward pass equals autograd's."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytorch_dni.synthesizers._mlp import MLP


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(0, 3),
    norm=st.sampled_from(["batch", "layer", None]),
    activation=st.sampled_from(["relu", "sigmoid"]),
    rows=st.integers(1, 6),
    positions=st.integers(0, 3),
    unit=st.sampled_from([1.0, 1e-3]),
    factor=st.sampled_from([1.0, 7.0]),
)
def test_the_explicit_backward_pass_equals_autograds(
    layers, norm, activation, rows, positions, unit, factor
):
    torch.manual_seed(0)
    net = MLP(5, 4, 3, layers, norm, activation).double()
    shape = (rows, positions, 5) if positions else (rows, 5)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    output = net(x)
    error = torch.randn_like(output)
    input_grad, *grads = torch.autograd.grad(
        output, [x, *net.parameters()], error * factor, materialize_grads=True
    )
    with torch.no_grad():
        explicit, tape = net.record(x, unit)
        delta, found = net.backpropagate(tape, error, factor)
    torch.testing.assert_close(explicit, output * unit)
    torch.testing.assert_close((delta @ net.first.weight).view(shape), input_grad)
    explicit_grads = dict(found)
    assert len(explicit_grads) == len(found)
    for parameter, grad in zip(net.parameters(), grads, strict=True):
        torch.testing.assert_close(explicit_grads.get(parameter, torch.zeros_like(grad)), grad)
        assert parameter.grad is None
