"""``BasicSynthesizer``: sizes, start at zero, explicit backward pass."""

import pytest
import torch

from pytorch_dni import (
    BasicSynthesizer,
    synthesizer_context,
    SynthesizerError,
    UnidirectionalInterface,
)
from tests.support.primitives import assert_close, double


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_wrong_sizes_are_errors(wrong):
    for name in ("hidden_dim", "trigger_dim", "context_dim"):
        with pytest.raises(SynthesizerError, match=name):
            BasicSynthesizer(4, 1, **{name: wrong})
    with pytest.raises(SynthesizerError, match="output_dim"):
        BasicSynthesizer(wrong)


def test_predictions_start_at_zero_and_lessons_equal_autograds():
    class Autograd(BasicSynthesizer):
        def forward(self, trigger, context=None):
            return super().forward(trigger, context)

    explicit = BasicSynthesizer(5, 2, 7, 4, 3).double()
    graph = Autograd(5, 2, 7, 4, 3).double()
    graph.load_state_dict(explicit.state_dict())
    assert graph.as_mlp() is None
    ours, theirs = (UnidirectionalInterface(s) for s in (explicit, graph))
    with synthesizer_context(torch.tensor([0, 1, 2, 2, 1, 0])):
        assert not ours.receive(double(6, 4)).any()
        for _ in range(4):
            trigger, message = double(6, 4), double(6, 5)
            for interface in (ours, theirs):
                interface.send(message, trigger)
            assert_close(ours.receive(trigger), theirs.receive(trigger))
        fresh = double(6, 4)
        assert ours.receive(fresh).any()
        assert_close(ours.receive(fresh), theirs.receive(fresh))
    for found, expected in zip(explicit.parameters(), graph.parameters(), strict=True):
        assert_close(found, expected)
    assert explicit.layers.last.weight.any()
