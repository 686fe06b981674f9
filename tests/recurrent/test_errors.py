"""Misuse of recurrent networks is a clear error or one warning."""

import warnings

import pytest
import torch
from torch import nn

from pytorch_dni import (
    BasicSynthesizer,
    DNI,
    DNIError,
    FutureGradient,
    LocalLoss_DNI,
    StateSpec,
    SynthesizerError,
    TemporalInterface,
)
from tests.support.recurrent_zoo import Own, Sequence


def test_states_that_are_never_passed_on_cause_one_warning():
    net, x = DNI(Sequence(nn.GRU)), torch.randn(3, 5, 3)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(60):
            net(x)[0].sum().backward()
    assert ["recurrent=False" in str(w.message) for w in warned] == [True]
    net, state = DNI(Sequence(nn.GRU)), None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(120):
            out, state = net(x, state if i % 2 else None)
            out.sum().backward()


def test_misuse_is_one_clear_error():
    for wrong in ({"factor": -1}, {"bound": 0}, {"probe": 1}):
        with pytest.raises(DNIError, match=next(iter(wrong))):
            FutureGradient(**wrong)
    with pytest.raises(DNIError, match="no module 'nine'"):
        DNI(Own(), recurrent={"nine": StateSpec()})
    with pytest.raises(DNIError, match=r"'core' \(Memory\) needs a StateSpec"):
        DNI(Own(), recurrent={"core": None})
    with pytest.raises(DNIError, match="recurrent=True finds no"):
        DNI(Own(), recurrent=True)
    with pytest.raises(DNIError, match="must be True, False or a mapping"):
        DNI(Own(), recurrent="core")
    x = torch.randn(3, 5, 3)
    with pytest.raises(DNIError, match="correct result="):
        DNI(Own(), recurrent={"core": StateSpec(keyword="memory", result="mem")})(x)
    with pytest.raises(DNIError, match="batch_dim"):
        net = DNI(
            Own(), recurrent={"core": StateSpec(keyword="memory", result="memory", batch_dim=1)}
        )
        net(x)
    with pytest.raises(SynthesizerError, match="gradient of the future"):
        DNI(Sequence(nn.GRU), dni_network=LocalLoss_DNI, context_size=2)(x)
    net = DNI(Sequence(nn.GRU))
    with pytest.raises(DNIError, match="end_of_sequence"):
        net.end_of_sequence()
    net(x)
    with pytest.raises(DNIError, match=r"\(5,\).*\(4,\)"):
        net.end_of_sequence(torch.ones(4))
    future = TemporalInterface(BasicSynthesizer(4))
    with pytest.raises(DNIError, match="needs no gradient"):
        future.backward(torch.zeros(5, 4))
