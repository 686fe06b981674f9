"""Gradients of a synthesizer's parameters are as autograd would leave them in ``grad``."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import memory_tracker
from pytorch_dni import BackwardInterface, DNI, DNI_Network, Linear_DNI, synthesizer_context


class Einsum_DNI(DNI_Network):
    """A synthesizer for whose weight autograd returns a transposed gradient."""

    features_last = True

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.weight = nn.Parameter(torch.zeros(self.output_size, self.input_size))

    def forward(self, input, hidden):
        return torch.einsum("...i,oi->...o", input, self.weight), None


def mlp():
    layers = [nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)]
    return nn.Sequential(*layers), torch.randn(4, 5)


def cnn():
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    layers = [first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 3)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    return network, torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)


def received_gradients(net):
    """Return the synthesizers' parameters, and a list that gets their gradients at each step.

    Each step of the synthesizers' optimizer adds the strides and the values of all gradients.
    """

    parameters = [p for i in net.interfaces.values() for p in i.synthesizer.parameters()]
    received = []

    def record(*_):
        received.append([(p.grad.stride(), p.grad.clone()) for p in parameters])

    for optimizer in {i.learner.optimizer for i in net.interfaces.values()}:
        optimizer.register_step_pre_hook(record)
    return parameters, received


@pytest.mark.parametrize(("make", "kind"), [(mlp, Einsum_DNI), (cnn, None)])
@pytest.mark.parametrize("optim", ["adam", "sgd"])
def test_gradients_of_any_memory_layout_train_alike(make, kind, optim):
    torch.manual_seed(0)
    network, x = make()
    ends, steps = [], []
    for eager in (False, True):
        torch.manual_seed(1)
        net = DNI(
            copy.deepcopy(network),
            layers=["1", "3"],
            dni_network=kind,
            unlock="update",
            eager=eager,
            grad_optim=optim,
            example_input=x,
        )
        parameters, received = received_gradients(net)
        for _ in range(6):
            F.cross_entropy(net(x), torch.arange(len(x)) % 3).backward()
        ends.append(parameters)
        steps.append(received)
    assert [len(received) for received in steps] == [6, 6]
    # Without eager learning, autograd itself writes to ``grad``.
    for theirs, ours in zip(*steps, strict=True):
        for parameter, (stride, grad), (_, expected) in zip(parameters, ours, theirs, strict=True):
            assert stride == parameter.stride()
            torch.testing.assert_close(grad, expected)
        assert any(grad.any() for _, grad in ours)
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert any(parameter.any() for parameter in ends[0])


class Offsets_DNI(DNI_Network):
    """A local loss that adds two parameters; the gradient of the third one is expanded."""

    predicts = "loss"
    features_last = True

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.a, self.b = (nn.Parameter(torch.zeros(self.input_size)) for _ in range(2))
        self.c = nn.Parameter(torch.zeros(3, 4))

    def loss(self, activation, target):
        return (activation.mean(0) + (self.a + self.b)).square().sum() + self.c.sum() * 0.3


@pytest.mark.parametrize("optim", [None, "sgd"])
def test_gradients_do_not_share_memory(optim):
    torch.manual_seed(0)
    synthesizer = Offsets_DNI(6, 8, 3)
    cut = BackwardInterface(synthesizer, optim=optim, lr=0.5, context_size=3)
    first, second, y = nn.Linear(5, 6), nn.Linear(6, 3), torch.tensor([0, 1, 2, 0])
    x = torch.randn(4, 5)
    expected = 2 * first(x).mean(0).detach()
    with synthesizer_context(y):
        out = second(cut(first(x)))
    F.cross_entropy(out, y).backward()
    if optim is None:
        found = [synthesizer.a.grad, synthesizer.b.grad, synthesizer.c.grad]
        nn.utils.clip_grad_norm_(synthesizer.parameters(), 1e9, foreach=False)
        found[0].add_(1)  # Must not change another gradient.
        found[0].sub_(1)
    else:
        found = [parameter / -0.5 for parameter in synthesizer.parameters()]
    for grad, target in zip(found, [expected, expected, torch.full((3, 4), 0.3)], strict=True):
        torch.testing.assert_close(grad, target)
    if optim is None:
        found[0].zero_()
        torch.testing.assert_close(found[1], expected)


class Repeated(nn.Module):
    """A layer that is called many times."""

    def __init__(self, calls):
        super().__init__()
        self.layer, self.head, self.calls = nn.Linear(2, 2), nn.Linear(2, 1), calls

    def forward(self, x):
        for _ in range(self.calls):
            x = torch.tanh(self.layer(x))
        return self.head(x)


def test_gradients_of_many_calls_are_held_once():
    def held(calls):
        net = DNI(Repeated(calls), layers="layer", hidden_size=512, unlock="update")
        x = torch.randn(2, 2)

        def step():
            net(x).sum().backward()

        for _ in range(3):
            step()
        (interface,) = net.interfaces.values()
        weights = [*interface.synthesizer.parameters()]
        optimizer = interface.learner.optimizer
        assert isinstance(interface.synthesizer, Linear_DNI)
        return memory_tracker.peak_memory(step, net.network, weights, [optimizer])[1], sum(
            w.numel() * 4 for w in weights
        )

    (few, one), (many, _) = held(4), held(24)
    assert many - few < 6 * one
