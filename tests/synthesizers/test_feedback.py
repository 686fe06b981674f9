"""Learned feedback: maps between all shapes, and the backward pass by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytorch_dni import Feedback_DNI, LocalError_DNI, SynthesizerError

# Shapes of activation and error, features last: vectors, sequences, one error for all positions,
# flattened positions, maps of equal and of other resolutions, and positions that differ.
SHAPES = [
    ((4, 6), (4, 3)),
    ((4, 6), (4, 17)),  # lessons from errors of 16 features or more are computed another way
    ((4, 5, 6), (4, 5, 3)),
    ((4, 5, 6), (4, 5, 17)),
    ((4, 5, 6), (4, 3)),
    ((4, 5, 6), (20, 3)),
    ((4, 3, 2, 6), (4, 3)),
    ((4, 4, 4, 6), (4, 4, 4, 3)),
    ((4, 4, 8, 6), (4, 2, 4, 3)),
    ((4, 8, 8, 6), (4, 2, 2, 3)),  # with a bound, a coarser map from which the gradient is taken
    ((4, 4, 4, 6), (4, 1, 1, 3)),
    ((4, 1, 1, 6), (4, 1, 1, 3)),
    ((4, 6), (4, 5, 3)),
    ((4, 7, 6), (4, 5, 3)),
    ((4, 5, 5, 6), (4, 2, 2, 3)),
]


def randomized(net):
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    return net.double()


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.sampled_from(SHAPES),
    gate=st.booleans(),
    max_parameters=st.sampled_from([2**20, 100]),
    unit=st.sampled_from([1.0, 1e-3]),
    factor=st.sampled_from([1.0, 5.0]),
    decay=st.sampled_from([0.0, 0.7]),
)
def test_the_backward_pass_by_hand_equals_autograds(
    shapes, gate, max_parameters, unit, factor, decay
):
    shape, error_shape = shapes
    torch.manual_seed(0)
    net = randomized(Feedback_DNI(shape, error_shape, 4, gate, max_parameters=max_parameters))
    x, error = torch.randn(shape).double(), torch.randn(error_shape).double()
    assert net.fits(error, x)
    output, hidden = net(x, None, error / unit)
    assert output.shape == x.shape
    assert hidden is None
    with torch.no_grad():
        recorded = net.record(x, error, unit, factor, decay)
    if recorded is None:
        return
    found, tape = recorded
    torch.testing.assert_close(found, factor * (output + decay * x))
    delta = torch.randn(shape).double()
    expected = torch.autograd.grad(output, [*net.parameters()], factor * delta)
    grads = dict(net.backpropagate(tape, delta, factor)[1])
    assert len(grads) == len(expected)
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(grads[parameter], grad)
        assert grads[parameter].stride() == parameter.stride()  # fused optimizers rely on it
        assert parameter.grad is None


@pytest.mark.parametrize(("shape", "error_shape"), SHAPES)
def test_the_prediction_is_linear_in_the_error_and_starts_at_zero(shape, error_shape):
    torch.manual_seed(0)
    x, error, other = torch.randn(shape), torch.randn(error_shape), torch.randn(error_shape)
    for gate in (False, True):
        net = Feedback_DNI(shape, error_shape, gate=gate)
        assert not net(x, None, error)[0].any()
        net = randomized(net)
        h, a, b = x.double(), error.double(), other.double()
        total = net(h, None, a)[0] - 2 * net(h, None, b)[0]
        torch.testing.assert_close(net(h, None, a - 2 * b)[0], total)


@pytest.mark.parametrize(
    ("shape", "error_shape"), [((4, 5, 6), (4, 5, 6)), ((4, 3, 3, 6), (4, 3, 3, 6))]
)
def test_the_map_between_equal_shapes_may_start_at_the_identity(shape, error_shape):
    error = torch.randn(error_shape)
    net = Feedback_DNI(shape, error_shape, identity=True)
    torch.testing.assert_close(net(torch.randn(shape), None, error)[0], error)


def test_large_maps_have_bounded_matrices():
    shape = (2, 56, 56, 64)
    full = Feedback_DNI(shape, (2, 2), max_parameters=2**20)
    assert full.direct.weight.numel() == 56 * 56 * 64 * 2
    cells = Feedback_DNI(shape, (2, 1000), max_parameters=2**20)
    assert cells.direct.weight.numel() <= 2**20
    output, _ = cells(torch.randn(shape), None, torch.randn(2, 1000))
    assert output.shape == shape
    positions = Feedback_DNI(shape, (2, 7, 7, 32))
    assert positions.direct.weight.numel() < 2**20
    one = Feedback_DNI((2, 16, 16, 64), (2, 1, 1, 1024))  # an error behind global pooling
    assert one.direct.weight.numel() <= 2**20
    many = Feedback_DNI((2, 6), (2, 500, 3))
    assert many.direct.weight.numel() <= 6 * 3 * 16


@pytest.mark.parametrize("stride", [2, 4, 8, 12])
def test_maps_between_maps_are_bounded_and_keep_the_positions_of_the_error(stride):
    height, width = 2, 3
    shape, error_shape = (2, stride * height, stride * width, 16), (2, height, width, 32)
    for most in (2**20, 2**15, 2**13, 9 * 16 * 32):
        net = Feedback_DNI(shape, error_shape, max_parameters=most)
        assert net.direct.weight.numel() <= most
        net = randomized(net)
        error = torch.zeros(error_shape).double()
        error[:, 0, 0] = 1.0
        gradient, _ = net(torch.zeros(shape).double(), None, error)
        assert gradient.shape == shape
        assert gradient[:, :stride, :stride].abs().amin() > 0
        assert not gradient[:, :, 2 * stride :].any()  # no cell of the error's is beside these


def test_other_lengths_and_batches_fit_a_synthesizer_that_spreads_the_error():
    net = randomized(Feedback_DNI((4, 5, 6), (4, 3)))
    for batch, length in ((4, 5), (2, 5), (3, 9), (1, 1)):
        x, error = torch.randn(batch, length, 6).double(), torch.randn(batch, 3).double()
        assert net.fits(error, x)
        assert net(x, None, error)[0].shape == x.shape
    assert not net.fits(torch.randn(3, 3), torch.randn(4, 5, 6))
    assert not net.fits(torch.randn(4, 2), torch.randn(4, 5, 6))


def test_shapes_without_common_samples_are_an_error():
    with pytest.raises(SynthesizerError, match="samples in their first dimension"):
        Feedback_DNI((4, 6), (5, 3))
    with pytest.raises(SynthesizerError, match="leave context_size out"):
        Feedback_DNI.for_activation(torch.Size((4, 6)), 3, None, error_shape=torch.Size((4, 3)))


@pytest.mark.parametrize(
    ("shape", "labels", "params"),
    [
        ((4, 6), (4,), {}),
        ((4, 5, 6), (4, 5), {}),
        ((4, 5, 6), (4,), {}),
        ((4, 5, 6), (5,), {}),
        ((4, 8, 8, 6), (4,), {}),
        ((4, 3, 2, 6), (4, 3, 2), {"pool": None}),
    ],
)
def test_the_error_of_a_local_head_is_that_of_its_loss(shape, labels, params):
    """The mean of the cross-entropy is over the labels, and positions that share one, share it."""
    torch.manual_seed(0)
    net = randomized(LocalError_DNI(shape, 3, norm=None, **params))
    x, target = torch.randn(shape).double(), torch.randint(0, 3, labels)
    with torch.no_grad():
        error, grads = net.local_error(x, target)
    parameters = [*net.head.parameters()]
    expected = torch.autograd.grad(net.loss(x, target), parameters)
    assert len(grads) == len(parameters)
    for parameter, grad in grads:
        torch.testing.assert_close(grad, expected[[p is parameter for p in parameters].index(True)])
    rows = net._rows(x, target)
    softmax = net.head(rows).softmax(-1)
    one_hot = torch.eye(3).double()[target]
    own = (softmax - one_hot) / math.prod(labels)
    leading = error.shape[:-1]
    if error.dim() > own.dim():
        first = labels == leading[: len(labels)]
        own = own.unsqueeze(1 if first else 0)
    torch.testing.assert_close(error, own.expand_as(error))
