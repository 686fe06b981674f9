"""A synthesizer of the user's that takes the error: a wrong one is named before it learns."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import (
    BackwardInterface,
    DNI,
    DNI_Network,
    Feedback_DNI,
    OutputError,
    SynthesizerError,
)
from tests.support.wrapped import classifier

WAYS = {
    "default": {},
    "exact every": {"exact_every": 2},
    "sparse": {"update_probability": 0.5},
    "lambda": {"bp_lambda": 0.5},
}


class OutputAlone(Feedback_DNI):
    def forward(self, input, hidden, error=None):
        return super().forward(input, hidden, error)[0]


class Narrow(Feedback_DNI):
    def forward(self, input, hidden, error=None):
        return super().forward(input, hidden, error)[0][..., :1], None


class WithoutError(Feedback_DNI):
    def forward(self, input, hidden):
        return input, None


class WrongShapes(Feedback_DNI):
    def forward(self, input, hidden, error=None):
        return input @ error, None


class Joined(DNI_Network):
    takes_error = True

    def forward(self, input, hidden):
        return input[..., :8]


class JoinedNarrow(Joined):
    def forward(self, input, hidden):
        return input[..., :2], None


KINDS = [
    (OutputAlone, r"forward\(input, hidden, error\).*\(OutputAlone\) returned Tensor: it must"),
    (Narrow, r"\(Narrow\) predicts shape \(4, 1\) for an activation of shape \(4, 8\): make"),
    (WithoutError, r"\(WithoutError\) does not take .*\(4, 8\) and an error of shape .*TypeError"),
    (WrongShapes, r"\(WrongShapes\) does not take .* and an error of shape .*: RuntimeError"),
    (Joined, r"forward\(input, hidden\).*\(Joined\) returned Tensor: it must return"),
    (JoinedNarrow, r"\(JoinedNarrow\) predicts shape \(4, 2\)"),
]


class TwoOutputs(nn.Module):
    """The error is taken at the last cut."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(classifier()[:5], nn.Linear(8, 8), nn.Tanh())
        self.first, self.second = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x):
        x = self.layers(x)
        return self.first(x), self.second(x)


NETWORKS = {
    "output": lambda: nn.Sequential(nn.Dropout(0.1), classifier()),
    "last cut": lambda: nn.Sequential(nn.Dropout(0.1), TwoOutputs()),
}


def assert_refuses(net, network, words):
    """Run a forward pass, which is refused and changes nothing."""
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    stats = repr(net.stats())
    for _ in range(2):
        with pytest.raises(SynthesizerError, match=words):
            net(torch.ones(4, 6))
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        assert torch.equal(torch.get_rng_state(), random)
        assert repr(net.stats()) == stats
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("kind", "words"), KINDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", NETWORKS)
def test_it_is_named_in_the_first_forward_pass(kind, words, way, place):
    network = NETWORKS[place]()
    net = DNI(network, dni_network=kind, **WAYS[way])
    assert_refuses(net, network, rf"'.*2'.*{words}")
    assert not net.interfaces


@pytest.mark.parametrize(("kind", "words"), KINDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", NETWORKS)
def test_it_is_named_in_the_first_pass_after_example_input(kind, words, way, place):
    """The example has another number of samples."""
    network = NETWORKS[place]()
    net = DNI(network, dni_network=kind, example_input=torch.ones(3, 6), **WAYS[way])
    assert net.interfaces
    assert_refuses(net, network, rf"'.*2'.*{words}")


@pytest.mark.parametrize(("kind", "words"), KINDS)
def test_it_is_named_where_it_is_used_by_hand(kind, words):
    size = {"input_size": 11, "hidden_size": 4, "output_size": 8}
    feedback = {"shape": (4, 8), "error_shape": (4, 3)}
    synthesizer = kind(**(feedback if issubclass(kind, Feedback_DNI) else size))
    first, second = nn.Linear(6, 8), nn.Linear(8, 3)
    interface, error = BackwardInterface(synthesizer), OutputError()
    output = second(interface(first(torch.ones(4, 6)), error=error))
    with pytest.raises(SynthesizerError, match=words):
        error.watch(output)
    assert first.weight.grad is None
    assert second.weight.grad is None


def test_asking_it_first_changes_neither_it_nor_random_numbers():
    class Drawing(Feedback_DNI):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, input, hidden, error=None):
            self.calls += 1
            return super().forward(input + torch.randn_like(input), hidden, error)

    x = torch.randn(4, 6)
    net = DNI(classifier(), dni_network=Drawing, example_input=x)
    before = torch.get_rng_state()
    output = net(x)
    assert torch.equal(before, torch.get_rng_state())
    assert [i.synthesizer.calls.item() for i in net.interfaces.values()] == [0, 0]
    output.sum().backward()
    assert [i.synthesizer.calls.item() for i in net.interfaces.values()] == [1, 1]


def test_it_is_asked_once():
    calls = []

    class Counting(Feedback_DNI):
        def forward(self, input, hidden, error=None):
            calls.append(error.shape)
            return super().forward(input, hidden, error)

    net = DNI(classifier(), dni_network=Counting)
    for _ in range(3):
        net(torch.randn(4, 6))
    assert calls == [(4, 3)] * len(net.interfaces)
    net(torch.randn(5, 6)).sum().backward()
    assert len(calls) == 2 * len(net.interfaces)


def test_it_is_named_in_a_step_that_is_not_exact():
    """A wrapper that continues from a checkpoint begins with such a step."""

    class Turning(Feedback_DNI):
        wrong = False

        def forward(self, input, hidden, error=None):
            answer = super().forward(input, hidden, error)
            return answer[0] if self.wrong else answer

    options = {"dni_network": Turning, "exact_every": 2}
    first = DNI(classifier(), **options)
    first(torch.randn(4, 6)).sum().backward()
    network = classifier()
    net = DNI(network, **options)
    net.load_state_dict(first.state_dict())
    Turning.wrong = True
    assert_refuses(net, network, "returned Tensor: it must return")
