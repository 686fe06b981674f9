"""Passes that are pending while something else happens: a load, a copy, another pass."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    CheckpointError,
    DNI,
    DNI_Network,
    DNIError,
    Linear_DNI,
    synthesizer_context,
    SynthesizerError,
)
from tests.support.checkpoints import structure, with_structure
from tests.support.wrapped import assert_equal, classifier, synthesizer_parameters, WAYS
from tests.support.zoo import Checkpointed, mlp


class Graph_DNI(Linear_DNI):
    """Is trained through autograd's graph."""

    def as_mlp(self):
        return None


@pytest.mark.parametrize("kind", [Linear_DNI, Graph_DNI])
@pytest.mark.parametrize("optim", ["adam", "rmsprop", torch.optim.SGD])
def test_the_last_cut_of_a_pending_eager_pass_learns_with_its_present_weights(kind, optim):
    """The lesson is that of a prediction with the weights after the first backward pass."""
    torch.manual_seed(0)
    net = DNI(mlp(), eager=True, dni_network=kind, dni_params={"norm": None},
              grad_optim=optim, grad_lr=0.05, example_input=torch.randn(5, 6))  # fmt: skip
    for _ in range(3):
        net(torch.randn(5, 6)).square().mean().backward()
    last = [*net.interfaces.values()][-1]
    first, second = (net(torch.randn(5, 6)).square().mean() for _ in range(2))
    first.backward()
    lessons, learn = [], last.learn

    def recorded(prediction, message, valid_mask=None):
        lessons.append((prediction.message.clone(), last._predicted.clone()))
        return learn(prediction, message, valid_mask)

    ask = last.ask

    def asked(trigger, context, hidden, error=None):
        prediction = ask(trigger, context, hidden, error)
        with torch.no_grad():
            output = last.synthesizer(trigger, None)[0] * last.scale.value
        object.__setattr__(last, "_predicted", output)
        return prediction

    last.ask, last.learn = asked, recorded
    second.backward()
    ((message, expected),) = lessons
    torch.testing.assert_close(message, expected)


OPTIONS = [{"unlock": "full"}, *WAYS.values()]
WAYS_TO_LEARN = {
    "context": {"dni_network": Linear_DNI, "context_size": 2},
    "local error": {"context_size": 2},
    **WAYS,
}


@pytest.mark.parametrize("way", WAYS_TO_LEARN)
def test_a_load_that_fails_leaves_a_pending_pass_as_it_was(way):
    torch.manual_seed(0)
    options = WAYS_TO_LEARN[way]
    x = torch.randn(5, 6)
    labels = torch.randint(2, (5,)) if "context_size" in options else None
    grads = []
    for fails in (False, True):
        torch.manual_seed(1)
        net = DNI(Checkpointed(), layers=["stem", "body.1"], example_input=x, **options)
        with synthesizer_context(labels):
            loss = net(x).square().mean()
        if fails:
            state = net.state_dict()
            changed = structure(state)
            changed["learner"]["kind"] = "elsewhere"  # is read last
            with pytest.raises(CheckpointError, match="elsewhere"):
                net.load_state_dict(with_structure(state, changed))
        loss.backward()
        grads.append([p.grad for p in net.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("options", [*OPTIONS, {"update_probability": 0.5}, {"eager": True}])
def test_a_pending_pass_does_not_count_in_a_loaded_state(options):
    torch.manual_seed(0)
    other = DNI(mlp(), **options)
    for _ in range(3):
        other(torch.randn(4, 6)).square().mean().backward()
    # Without the network's parameters, whose change autograd itself refuses before a backward pass.
    state = {k: v for k, v in other.state_dict().items() if k.startswith("_dni.")}
    for placed in (False, True):
        net = DNI(mlp(), **options)
        if placed:
            net.load_state_dict(copy.deepcopy(state), strict=False)
        loss = net(torch.randn(4, 6)).square().mean()
        net.load_state_dict(copy.deepcopy(state), strict=False)
        before = [p.clone() for p in synthesizer_parameters(net)]
        loss.backward()
        assert net.state_dict()["_dni.steps"] == 3
        assert net.stats() == other.stats()
        assert_equal(before, synthesizer_parameters(net))


def failed_first_pass(**way):
    net = DNI(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(3, 2)), layers="0", **way)
    with pytest.raises(RuntimeError):
        net(torch.randn(4, 6))
    return net


def module_called_before_the_first_pass(**way):
    net = DNI(mlp(), **way)
    net.network[0](torch.randn(4, 6))
    return net


def failed_backward_pass(**way):
    if way["unlock"] == "update":
        way["dni_network"] = Graph_DNI
    net = DNI(mlp(), example_input=torch.randn(2, 6), **way)
    x = torch.randn(4, 6, requires_grad=True)
    x.register_hook(lambda grad: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        net(x).sum().backward()
    return net


def inside_a_forward_pass(**way):
    net = DNI(mlp(), **way)
    net(torch.randn(4, 6)).sum().backward()
    found = []
    handle = net.network[4].register_forward_pre_hook(
        lambda *call: found.append(copy.deepcopy(net))
    )
    net(torch.randn(4, 6))
    handle.remove()
    return found[0]


outputs = []  # of passes that stay pending


def pending_pass(**way):
    net = DNI(mlp(), **way)
    net(torch.randn(4, 6)).sum().backward()
    outputs.append(net(torch.randn(4, 6)))
    return net


def input_with_a_graph(**way):
    net = DNI(mlp(), **way)
    net(torch.randn(4, 6, requires_grad=True) * 2).sum().backward()
    return net


STATES = [
    failed_first_pass,
    module_called_before_the_first_pass,
    failed_backward_pass,
    inside_a_forward_pass,
    pending_pass,
    input_with_a_graph,
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("make", STATES)
def test_a_wrapper_can_be_copied_in_any_state(make, options):
    net = make(**options)
    again = copy.deepcopy(net)
    assert [*again.interfaces] == [*net.interfaces]
    assert again._rooms.errors.current.value is None


@pytest.mark.parametrize("way", WAYS)
def test_evaluation_releases_what_an_unfinished_first_pass_recorded(way):
    net = DNI(mlp(), **WAYS[way])
    outputs = [net.network[0](torch.randn(4, 6)) for _ in range(3)]
    refs = [weakref.ref(out) for out in outputs]
    del outputs
    net.eval()
    assert [ref() for ref in refs] == [None] * 3


def test_a_pass_without_gradients_keeps_no_input():
    net = DNI(mlp(), unlock="full")
    x = torch.randn(4, 6)
    with torch.no_grad():
        net(x)
    ref = weakref.ref(x)
    del x
    assert ref() is None
    with pytest.raises(DNIError, match="call the network itself"):
        net.network[:3](torch.randn(7, 6)).sum().backward()


def test_a_synthesizer_that_fails_in_the_forward_pass_leaves_eager_learning_intact():
    class Fails(DNI_Network):
        features_last = True
        fails = False

        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.layer = nn.Linear(sizes[0], sizes[2])

        def forward(self, input, hidden):
            if Fails.fails:
                raise RuntimeError("stop")
            return self.layer(input), None

    net = DNI(classifier(), eager=True, dni_network=Fails, example_input=torch.randn(4, 6))
    x, y = torch.randn(8, 6), torch.randint(3, (8,))
    Fails.fails = True
    with pytest.raises(SynthesizerError, match=r"'2'.*Fails.*RuntimeError: stop"):
        net(x)
    Fails.fails = False
    F.cross_entropy(net(x), y).backward()
    Fails.fails = True
    with pytest.raises(RuntimeError, match="stop"):
        net(x)
    Fails.fails = False
    F.cross_entropy(net(x), y).backward()
    assert {stats.updates for stats in net.stats().values()} == {2}
