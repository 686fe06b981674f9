"""Passes that are pending while something else happens: a load, a copy, another pass."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import CheckpointError, DNI, DNI_Network, DNIError, Linear_DNI, synthesizer_context
from tests.support.wrapped import classifier
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

    def asked(trigger, context, hidden):
        prediction = ask(trigger, context, hidden)
        with torch.no_grad():
            output = last.synthesizer(trigger, None)[0] * last.scale.value
        object.__setattr__(last, "_predicted", output)
        return prediction

    last.ask, last.learn = asked, recorded
    second.backward()
    ((message, expected),) = lessons
    torch.testing.assert_close(message, expected)


def test_a_load_that_fails_leaves_a_pending_pass_as_it_was():
    torch.manual_seed(0)
    x, labels = torch.randn(5, 6), torch.randint(2, (5,))
    grads = []
    for fails in (False, True):
        torch.manual_seed(1)
        net = DNI(Checkpointed(), layers=["body.1"], context_size=2, example_input=x)
        with synthesizer_context(labels):
            loss = net(x).square().mean()
        if fails:
            state = net.get_extra_state()
            state["learner"]["order"].append("elsewhere")
            with pytest.raises(CheckpointError):
                net.set_extra_state(state)
        loss.backward()
        grads.append([p.grad for p in net.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_a_pending_pass_does_not_count_in_a_loaded_state():
    torch.manual_seed(0)
    net = DNI(mlp(), unlock="full")
    net(torch.randn(4, 6)).square().mean().backward()
    state = copy.deepcopy(net.get_extra_state())
    loss = net(torch.randn(4, 6)).square().mean()
    net.set_extra_state(state)
    loss.backward()
    assert net.get_extra_state()["learner"]["steps"] == state["learner"]["steps"]


def failed_first_pass():
    net = DNI(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(3, 2)), layers="0")
    with pytest.raises(RuntimeError):
        net(torch.randn(4, 6))
    return net


def module_called_before_the_first_pass():
    net = DNI(mlp())
    net.network[0](torch.randn(4, 6))
    return net


def failed_backward_pass():
    net = DNI(mlp(), dni_network=Graph_DNI, example_input=torch.randn(2, 6))
    hidden = net.network[0](torch.randn(4, 6))
    hidden.register_hook(lambda grad: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        net.network[1:](hidden).sum().backward()
    return net


def input_with_a_graph():
    net = DNI(mlp(), unlock="full")
    net(torch.randn(4, 6, requires_grad=True) * 2).sum().backward()
    return net


STATES = [
    failed_first_pass,
    module_called_before_the_first_pass,
    failed_backward_pass,
    input_with_a_graph,
]


@pytest.mark.parametrize("make", STATES)
def test_a_wrapper_can_be_copied_in_any_state(make):
    net = make()
    again = copy.deepcopy(net)
    assert [*again.interfaces] == [*net.interfaces]


def test_evaluation_releases_what_an_unfinished_first_pass_recorded():
    net = DNI(mlp())
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
    with pytest.raises(RuntimeError, match="stop"):
        net(x)
    Fails.fails = False
    F.cross_entropy(net(x), y).backward()
    assert {stats.updates for stats in net.stats().values()} == {1}
