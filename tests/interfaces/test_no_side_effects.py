"""Predictions and evaluation change nothing."""

import pytest
import torch

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    synthesizer_context,
)
from tests.support.primitives import every_kind


@pytest.mark.parametrize("optim", ["adam", None])
def test_predictions_change_no_gradient_and_no_state(optim):
    for interface, shape in every_kind(optim).values():
        parameters = [*interface.synthesizer.parameters()]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        h = torch.randn(shape, requires_grad=True)
        with synthesizer_context(torch.randint(0, 3, (4,))):
            assert interface.receive(h).shape == h.shape
            interface.backward(h * 1)
        assert all(torch.equal(p.grad, torch.ones_like(p)) for p in parameters)
        assert interface.hidden is None
        assert interface.stats().updates == 0


def test_evaluation_and_no_grad_return_the_input_itself():
    h, x = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3)
    one = BackwardInterface(BasicSynthesizer(5))
    both = BidirectionalInterface(BasicSynthesizer(5, trigger_dim=3), BasicSynthesizer(5))
    forward = both.forward_interface
    with torch.no_grad():
        assert one(h) is h
        assert one.make_trigger(h) is h
        assert both(h, x) is h
        assert forward(h, x) is h
    for interface in (one, both):
        interface.eval()
    assert one(h) is h
    assert one.make_trigger(h) is h
    assert both(h, x) is h
    one.backward(h)
    one.send(h, h)
    both.send(h, x)
    assert h.grad is None
    assert one.stats().updates == both.stats().updates == forward.stats().updates == 0
