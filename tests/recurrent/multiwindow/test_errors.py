"""Wrong targets, and synthesizers that do not fit them, are clear errors."""

import pytest
import torch
from torch import nn

from pytorch_dni import (
    Critic_DNI,
    DNI,
    DNIError,
    FutureGradient,
    Linear_DNI,
    SynthesizerError,
    TemporalInterface,
)
from tests.support.recurrent_zoo import Sequence


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"target": "future"}, "target must be"),
        ({"windows": 0}, "windows must be a positive integer"),
        ({"lambda_": 1.5}, "lambda_ must be a finite number of at least 0 and at most 1"),
        ({"auxiliary": -1}, "auxiliary must be a finite number of at least 0"),
    ],
)
def test_wrong_arguments_are_errors(wrong, words):
    with pytest.raises(DNIError, match=words):
        FutureGradient(**wrong)


def test_misuse_is_one_clear_error():
    x = torch.randn(3, 5, 3)
    for target, kind, params in (
        ("traces", Linear_DNI, {"norm": "batch"}),
        ("traces", Critic_DNI, {}),
        ("returns", Critic_DNI, {}),
    ):
        net = DNI(
            Sequence(nn.GRU),
            future=FutureGradient(target=target),
            dni_network=kind,
            dni_params=params,
        )
        with pytest.raises(SynthesizerError, match=r"core\.state.*(norm|critic)"):
            net(x)
        assert not net.interfaces
    with pytest.raises(DNIError, match="cuts in space"):
        DNI(
            Sequence(nn.GRU), layers="core", recurrent=True, future=FutureGradient(target="returns")
        )
    by_hand = TemporalInterface(Linear_DNI(4, 4, 4), future=FutureGradient(target="returns"))
    with pytest.raises(DNIError, match="takes the wrapper"):
        by_hand.make_trigger(torch.randn(5, 4))
    with pytest.raises(SynthesizerError, match="output_size"):
        TemporalInterface(nn.Linear(4, 4), future=FutureGradient(auxiliary=1.0))
