"""The synthesizer at each cut: defaults, the user's classes and callables."""

import pytest
import torch
from torch import nn

from pytorch_dni import (
    Conv2d_DNI,
    DNI,
    DNI_Network,
    Feedback_DNI,
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
    SynthesizerError,
)
from tests.support.zoo import relu_mlp


def kinds(network, example, **options):
    net = DNI(network, example_input=example, **options)
    found = {name: type(i.synthesizer) for name, i in net.interfaces.items()}
    net.unwrap()
    return found


def test_the_default_kind_follows_the_shape_of_the_output():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    x = torch.randn(3, 1, 4, 4)
    for options in ({"unlock": "update"}, {"eager": True}):
        assert kinds(network, x, **options) == {"1": Conv2d_DNI, "4": Linear_DNI}
    network = nn.Sequential(nn.Conv1d(3, 5, 3), nn.Conv1d(5, 4, 3))
    assert kinds(network, torch.randn(2, 3, 8), unlock="update") == {"0": Conv2d_DNI}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, Feedback_DNI),
        ({"unlock": "backward"}, Feedback_DNI),
        ({"exact_every": 4}, Feedback_DNI),
        ({"context_size": 3}, LocalError_DNI),
        ({"context_size": 3, "unlock": "update"}, LocalError_DNI),
        ({"context_size": 3, "eager": True}, LocalError_DNI),
        ({"context_size": 3, "dni_network": Linear_DNI}, Linear_DNI),
        ({"unlock": "update"}, Linear_DNI),
    ],
)
def test_the_default_kind_follows_the_unlock_level_and_the_context(options, kind):
    found = kinds(relu_mlp(), torch.randn(4, 6), **options)
    assert found == dict.fromkeys(["1", "3", "5"], kind)


@pytest.mark.parametrize("kind", [Linear_DNI, RNN_DNI, LocalLoss_DNI, Conv2d_DNI, None])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_kind_fits_every_layer(kind, batch):
    """Synthesizers that take features last also work at convolutions, at each position."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    net = DNI(network, dni_network=kind, context_size=3)
    for _ in range(2):
        with synthesizer_context(torch.zeros(batch, dtype=torch.int64)):
            net(torch.randn(batch, 1, 6, 6)).square().sum().backward()
    assert net.stats()["1"].updates == 2
    assert network[0].weight.grad.isfinite().all()


def test_a_users_class_gets_sizes_parameters_and_its_hidden_state():
    class Scaled_DNI(DNI_Network):
        def __init__(self, input_size, hidden_size, output_size, scale):
            super().__init__(input_size, hidden_size, output_size)
            self.linear = nn.Linear(input_size, output_size)
            self.scale = scale

        def forward(self, input, hidden):
            count = 0 if hidden is None else hidden
            return self.linear(input) * self.scale, count + 1

    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    net = DNI(
        network, dni_network=Scaled_DNI, dni_params={"scale": 0.5}, context_size=2, hidden_size=9
    )
    for _ in range(3):
        with synthesizer_context(torch.tensor([0, 1, 1])):
            net(torch.randn(3, 4)).sum().backward()
    custom = net.interfaces["0"].synthesizer
    assert (custom.input_size, custom.hidden_size, custom.output_size) == (7, 9, 5)
    assert net.interfaces["0"].hidden == 3


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_a_callable_may_return_any_module(unlock):
    class Plain(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.linear = nn.Linear(size, size)

        def forward(self, trigger, context):
            return self.linear(trigger)

    calls = []

    def make(name, module, output):
        calls.append((name, type(module), tuple(output.shape)))
        return Plain(output.shape[-1])

    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    net = DNI(network, dni_network=make, unlock=unlock)
    net(torch.randn(3, 4)).sum().backward()
    assert calls == [("0", nn.Linear, (3, 5))]
    assert isinstance(net.interfaces["0"].synthesizer, Plain)


def test_wrong_synthesizers_are_errors():
    class Wrong(DNI_Network):
        def forward(self, input, hidden):
            return input[:, :2], None

    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    net = DNI(network, dni_network=Wrong)
    with pytest.raises(SynthesizerError, match=r"'0' \(Wrong\) predicts shape \(3, 2\)"):
        net(torch.randn(3, 4)).sum().backward()
    net.unwrap()
    for kind, params, words in [
        (Linear_DNI, {"colour": 1}, "colour"),
        (Linear_DNI, {"norm": "group"}, "norm"),
        (Linear_DNI, {"num_layers": -1}, "num_layers"),
        (Conv2d_DNI, {"kernel_size": 2}, "odd"),
        (RNN_DNI, {"cell": "elman"}, "lstm"),
        (lambda name, module, output: 3, {}, "returned a int"),
    ]:
        net = DNI(network, dni_network=kind, dni_params=params)
        with pytest.raises(SynthesizerError, match=words):
            net(torch.randn(3, 4))
        net.unwrap()
    with pytest.raises(SynthesizerError, match="context_size"):
        DNI(network, dni_network=LocalLoss_DNI)


def test_initial_weights_follow_the_seed():
    def first(seed):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 1))
        net = DNI(network, unlock="update", example_input=torch.randn(2, 4))
        return [i.synthesizer.layers.first.weight for i in net.interfaces.values()]

    assert torch.equal(first(1)[0], first(1)[0])
    assert not torch.equal(first(1)[0], first(2)[0])
    a, b = first(1)
    assert not torch.equal(a[:, :4], b[:, :4])
