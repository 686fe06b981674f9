"""Synthesizers: shapes, starts, explicit gradients, memories, and those of one's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    Conv2d_DNI,
    DNI,
    DNI_Network,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
    SynthesizerError,
)
from pytorch_dni.synthesizers._perceptron import Perceptron


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
def test_the_explicit_backward_pass_is_autograds(
    layers, norm, activation, rows, positions, unit, factor
):
    torch.manual_seed(0)
    net = Perceptron(5, 4, 3, layers, norm, activation).double()
    shape = (rows, positions, 5) if positions else (rows, 5)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    output = net(x)
    error = torch.randn_like(output)
    input_grad, *grads = torch.autograd.grad(
        output, [x, *net.parameters()], error * factor, materialize_grads=True
    )
    with torch.no_grad():
        explicit, tape = net.run(x, unit)
        delta, found = net.backpropagate(tape, error, factor)
    torch.testing.assert_close(explicit, output * unit)
    torch.testing.assert_close((delta @ net.first.weight).view(shape), input_grad)
    explicit_grads = dict(found)
    assert len(explicit_grads) == len(found)
    for parameter, grad in zip(net.parameters(), grads, strict=True):
        torch.testing.assert_close(explicit_grads.get(parameter, torch.zeros_like(grad)), grad)
        assert parameter.grad is None


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
def test_shapes_and_a_start_at_zero(make, shape):
    net = make()
    x = torch.randn(shape)
    output, _ = net(x, None)
    places = [n for n in shape if n != 7]
    assert sorted(output.shape) == sorted([*places, 5])
    assert not output.any()
    output.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in net.parameters())


def test_sigmoid_layers_are_sigmoid():
    net = Linear_Sigmoid_DNI(3, 4, 2, norm=None)
    nn.init.normal_(net.layers.last.weight)
    x = torch.randn(5, 3)
    expected = net.layers.last(torch.sigmoid(net.layers.first(x)))
    torch.testing.assert_close(net(x, None)[0], expected)


def test_rnn_synthesizer_keeps_its_state_between_calls():
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), dni_network=RNN_DNI, hidden_size=6)
    calls = []
    net(torch.randn(3, 4)).sum().backward()
    interface = net.interfaces["0"]
    inner = interface.synthesizer.forward
    interface.synthesizer.forward = lambda x, h: (calls.append(h), inner(x, h))[1]
    first = interface.hidden
    assert first[0].shape == (1, 3, 6)
    net(torch.randn(3, 4)).sum().backward()
    assert calls[-1] is first
    assert interface.hidden is not first
    assert not any(h.requires_grad for h in interface.hidden)
    net(torch.randn(2, 4)).sum().backward()  # another batch size: begins anew
    assert interface.hidden[0].shape == (1, 2, 6)


def test_rnn_synthesizer_takes_the_layout_of_the_module_it_stands_behind():
    class Stack(nn.Module):
        def __init__(self, batch_first):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 4, batch_first=batch_first), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    for batch_first in (True, False):
        net = DNI(Stack(batch_first), layers="rnn", dni_network=RNN_DNI, hidden_size=6)
        net(torch.randn(2, 5, 3)).sum().backward()
        interface = net.interfaces["rnn"]
        assert interface.synthesizer.batch_first is batch_first
        assert interface.hidden[0].shape[1] == (2 if batch_first else 5)


def test_defaults_follow_the_output():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    net = DNI(network, example_input=torch.randn(3, 1, 4, 4))
    kinds = {n: type(i.synthesizer) for n, i in net.interfaces.items()}
    assert kinds == {"1": Conv2d_DNI, "4": Linear_DNI}
    net = DNI(
        nn.Sequential(nn.Conv1d(3, 5, 3), nn.Conv1d(5, 4, 3)), example_input=torch.randn(2, 3, 8)
    )
    assert isinstance(net.interfaces["0"].synthesizer, Conv2d_DNI)


@pytest.mark.parametrize("kind", [Linear_DNI, RNN_DNI, LocalLoss_DNI, Conv2d_DNI])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_kind_behind_every_layer(kind, batch):
    """Features-last synthesizers work behind convolutions, at every place of the map."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    net = DNI(network, dni_network=kind, context_size=3)
    for _ in range(2):
        with synthesizer_context(torch.zeros(batch, dtype=torch.int64)):
            net(torch.randn(batch, 1, 6, 6)).square().sum().backward()
    assert net.stats()["1"].updates == 2
    assert network[0].weight.grad.isfinite().all()


def test_a_synthesizer_of_ones_own():
    class Mine(DNI_Network):
        def __init__(self, input_size, hidden_size, output_size, scale):
            super().__init__(input_size, hidden_size, output_size)
            self.linear = nn.Linear(input_size, output_size)
            self.scale = scale

        def forward(self, input, hidden):
            count = 0 if hidden is None else hidden
            return self.linear(input) * self.scale, count + 1

    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    net = DNI(network, dni_network=Mine, dni_params={"scale": 0.5}, context_size=2, hidden_size=9)
    for _ in range(3):
        with synthesizer_context(torch.tensor([0, 1, 1])):
            net(torch.randn(3, 4)).sum().backward()
    mine = net.interfaces["0"].synthesizer
    assert (mine.input_size, mine.hidden_size, mine.output_size) == (7, 9, 5)
    assert net.interfaces["0"].hidden == 3


def test_a_callable_makes_any_module():
    class Plain(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.linear = nn.Linear(size, size)

        def forward(self, trigger, context):
            return self.linear(trigger)

    asked = []

    def make(name, module, output):
        asked.append((name, type(module), tuple(output.shape)))
        return Plain(output.shape[-1])

    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), dni_network=make)
    net(torch.randn(3, 4)).sum().backward()
    assert asked == [("0", nn.Linear, (3, 5))]
    assert isinstance(net.interfaces["0"].synthesizer, Plain)


def test_synthesizers_that_do_not_fit_are_errors():
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


def test_initial_synthesizers_follow_the_seed():
    def first(seed):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 1))
        net = DNI(network, example_input=torch.randn(2, 4))
        return [i.synthesizer.layers.first.weight for i in net.interfaces.values()]

    assert torch.equal(first(1)[0], first(1)[0])
    assert not torch.equal(first(1)[0], first(2)[0])
    a, b = first(1)
    assert not torch.equal(a[:, :4], b[:, :4])


@pytest.mark.parametrize("optim", ["adam", "adamw", "rmsprop", "sgd", torch.optim.Adagrad])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_synthesizers_learn_gradients_of_any_size(optim, size):
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    lr = {"sgd": 0.3, torch.optim.Adagrad: 0.1}.get(optim)
    net = DNI(network, grad_optim=optim, grad_lr=lr)
    x = torch.randn(64, 4)
    for _ in range(250):
        (net(x).square().mean() * size).backward()
    stats = net.stats()["0"]
    assert stats.loss < 0.2
    assert stats.cosine > 0.9
    assert 0.8 < stats.norm_ratio < 1.2


def test_stats_measure_what_they_say():
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    noise = torch.randn(8, 5)

    class Fixed(DNI_Network):
        normalize_target = False

        def forward(self, input, hidden):
            return noise, None

    x = torch.randn(8, 4)
    h = network[0](x).detach().requires_grad_()
    (expected,) = torch.autograd.grad(network[1](h).square().mean(), h)
    net = DNI(network, dni_network=lambda *a: Fixed(1, 1, 1))
    net(x).square().mean().backward()
    stats = net.stats()["0"]
    cosine = F.cosine_similarity(noise.flatten(), expected.flatten(), dim=0)
    assert stats.cosine == pytest.approx(cosine.item(), rel=1e-4)
    assert stats.norm_ratio == pytest.approx((noise.norm() / expected.norm()).item(), rel=1e-4)
    loss = (noise - expected).square().sum() / expected.square().sum()
    assert stats.loss == pytest.approx(loss.item(), rel=1e-4)
    assert stats.updates == 1
