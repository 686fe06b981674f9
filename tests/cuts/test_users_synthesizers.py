"""A synthesizer of the user's that is wrong: an error before anything learns."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNI_Network, Linear_DNI, SynthesizerError
from tests.support.wrapped import classifier

WAYS = {
    "update": {"unlock": "update"},
    "eager": {"eager": True},
    "exact every": {"unlock": "update", "exact_every": 2},
    "sparse": {"unlock": "update", "update_probability": 0.5},
    "full": {"unlock": "full"},
}


class OutputAlone(DNI_Network):
    def forward(self, input, hidden):
        return input


class OfOneSample(OutputAlone):
    """With two samples, its output could be unpacked into two."""


class Nothing(DNI_Network):
    def forward(self, input, hidden):
        return None


class TooMany(DNI_Network):
    def forward(self, input, hidden):
        return input, None, None


class Narrow(DNI_Network):
    def forward(self, input, hidden):
        return input[..., :1], None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OutputAlone, r"\(OutputAlone\) returned Tensor: it must return \(output, hidden\)"),
        (OfOneSample, r"\(OfOneSample\) returned Tensor: it must return \(output, hidden\)"),
        (Nothing, r"\(Nothing\) returned NoneType"),
        (TooMany, r"\(TooMany\) returned \(Tensor, NoneType, NoneType\)"),
        (Narrow, r"\(Narrow\) predicts shape \(2, 1\)"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("example", [None, torch.randn(2, 6)])
def test_a_wrong_forward_is_named_in_the_forward_pass(kind, words, way, example):
    network = classifier()
    net = DNI(network, dni_network=kind, example_input=example, **WAYS[way])
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(SynthesizerError, match=rf"'2'.*{words}"):
        net(torch.randn(2, 6))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in network.parameters())


def test_asking_a_synthesizer_first_changes_neither_it_nor_random_numbers():
    class Drawing(Linear_DNI):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, input, hidden):
            self.calls += 1
            return super().forward(input + torch.randn_like(input), hidden)

    x = torch.randn(2, 6)
    net = DNI(classifier(), dni_network=Drawing, unlock="update", example_input=x)
    before = torch.get_rng_state()
    net(x)
    assert torch.equal(before, torch.get_rng_state())
    assert [i.synthesizer.calls.item() for i in net.interfaces.values()] == [0, 0]


def give_none(name, module, output):
    return None


def give_a_tensor(name, module, output):
    return output


def give_a_class(name, module, output):
    return Linear_DNI


def give_the_wrong_arguments(name, module, output):
    return Linear_DNI(8)


class Refusing(DNI_Network):
    def __init__(self, *sizes):
        raise RuntimeError("no memory")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (give_none, r"dni_network returned a NoneType for '2' \(ReLU\): it must return a module"),
        (give_a_tensor, r"dni_network returned a Tensor for '2' \(ReLU\)"),
        (give_a_class, r"dni_network returned the class Linear_DNI for '2' \(ReLU\)"),
        (give_the_wrong_arguments, r"dni_network raised TypeError for '2' \(ReLU\): .*hidden_size"),
        (Refusing, r"Refusing for '2' \(ReLU\) cannot be built.*RuntimeError: no memory"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_dni_network_that_gives_no_synthesizer_is_an_error_that_names_the_cut(kind, words, way):
    network = classifier()
    before = copy.deepcopy(network.state_dict())
    net = DNI(network, dni_network=kind, **WAYS[way])
    for _ in range(2):
        with pytest.raises(SynthesizerError, match=words):
            net(torch.randn(2, 6))
    assert not net.interfaces
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with pytest.raises(SynthesizerError, match=words):
        DNI(classifier(), dni_network=kind, example_input=torch.randn(2, 6), **WAYS[way])


def test_forward_network_that_gives_no_synthesizer_is_an_error_that_names_the_cut():
    for build, words in [
        (lambda *call: 3, "forward_network returned a int for interface '2'"),
        (lambda *call: nn.Linear(3), "forward_network raised TypeError for interface '2'"),
    ]:
        net = DNI(classifier(), unlock="full", forward_network=build)
        with pytest.raises(SynthesizerError, match=words):
            net(torch.randn(2, 6))
