"""In-place operations, retained graphs and several graphs at once."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    ForwardInterface,
)
from tests.support.primitives import (
    assert_close,
    assert_matches_regression,
    double,
    linear,
    LR,
    synthesizer,
)
from tests.support.reference import Regression


def test_activations_may_change_in_place_before_and_after_a_cut():
    layer = linear(3, 5)
    expected = None
    for inplace in (False, True):
        torch.manual_seed(1)
        cut = BackwardInterface(synthesizer(5, 5), optim="sgd", lr=LR)
        both = BidirectionalInterface(synthesizer(3, 5), synthesizer(5, 5), optim="sgd", lr=LR)
        grads = []
        for _ in range(3):
            x = double(4, 3)
            layer.zero_grad()
            F.relu(cut(layer(x)), inplace=inplace).square().sum().backward()
            grads.append(layer.weight.grad.clone())
            F.leaky_relu(both(layer(x), x) + 0, inplace=inplace).square().sum().backward()
            F.leaky_relu(both(layer(x), x), inplace=inplace).square().sum().backward()
            grads.append(layer.weight.grad.clone())
        assert any(g.abs().sum() > 0 for g in grads)
        if expected is not None:
            for grad, other in zip(grads, expected, strict=True):
                assert_close(grad, other)
        expected = grads


class Unscaled(nn.Module):
    """A synthesizer that learns through autograd and whose targets are not normalized."""

    normalize_target = False

    def __init__(self, before, after):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(before, 6), nn.Tanh(), nn.Linear(6, after))

    def forward(self, trigger, context):
        return self.layers(trigger)


KINDS = [Unscaled, lambda i, o: BasicSynthesizer(o, 1, trigger_dim=i)]


def all_gradients(*modules):
    return [parameter.grad for module in modules for parameter in module.parameters()]


def summed_gradients(passes, loss, *modules):
    """Return the sums of the gradients of passes, each of which has a graph of its own."""
    grads = []
    for _ in range(passes):
        for module in modules:
            module.zero_grad()
        loss().backward()
        grads.append(all_gradients(*modules))
    return [sum(grad) for grad in zip(*grads, strict=True)]


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize("make", KINDS)
def test_a_retained_graph_teaches_again_and_two_graphs_may_be_open(make, optim):
    both = BidirectionalInterface(make(3, 5), make(5, 5), optim=optim)
    layer, x = nn.Linear(3, 5), torch.randn(6, 3)
    separate, separate_layer = copy.deepcopy((both, layer))
    losses = [both(layer(x), x).square().sum() for _ in range(2)]
    losses[0].backward(retain_graph=True)
    losses[1].backward()
    losses[0].backward()
    assert both.stats().updates == both.forward_interface.stats().updates == 3
    if optim is None:  # No synthesizer changes between the passes.
        expected = summed_gradients(
            3, lambda: separate(separate_layer(x), x).square().sum(), separate, separate_layer
        )
        torch.testing.assert_close(all_gradients(both, layer), expected)
        assert any(grad.any() for grad in expected)


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize("make", KINDS)
def test_a_retained_graph_equals_two_passes_at_a_backward_interface(make, optim):
    synthesizer = make(5, 5)
    for parameter in synthesizer.parameters():
        nn.init.normal_(parameter, std=0.3)
    cut, layer, x = BackwardInterface(synthesizer, optim=optim), nn.Linear(3, 5), torch.randn(6, 3)
    separate, separate_layer = copy.deepcopy((cut, layer))
    loss = cut(layer(x)).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()
    expected = summed_gradients(
        2, lambda: separate(separate_layer(x)).square().sum(), separate, separate_layer
    )
    assert layer.weight.grad.any()
    torch.testing.assert_close(all_gradients(cut, layer), expected)
    found, expected = cut.synthesizer.state_dict(), separate.synthesizer.state_dict()
    torch.testing.assert_close(found, expected)
    assert cut.stats() == separate.stats()


def test_retained_and_open_graphs_follow_the_equations_at_a_bidirectional_interface():
    both = BidirectionalInterface(synthesizer(3, 5), synthesizer(5, 5), optim="sgd", lr=LR)
    activations, gradients = Regression(3, 5, LR), Regression(5, 5, LR)
    layer = linear(3, 5)
    for _ in range(3):
        xs = [double(4, 3) for _ in range(2)]
        hs = [x @ layer.weight.detach().t() for x in xs]
        losses = [both(layer(x), x).square().sum() for x in xs]
        passed_on = [activations.predict(x) for x in xs]
        layer.zero_grad()
        expected = torch.zeros_like(layer.weight.detach())
        for i in (0, 1, 0):
            losses[i].backward(retain_graph=True)
            expected += gradients.predict(hs[i]).t() @ xs[i]
            activations.learn(xs[i], hs[i])
            gradients.learn(hs[i], 2 * passed_on[i])
        assert_close(layer.weight.grad, expected)
    assert expected.any()
    assert_matches_regression(both.forward_interface.synthesizer, activations)
    assert_matches_regression(both.backward_interface.synthesizer, gradients)


def test_open_graphs_teach_the_synthesizer_as_it_is_at_their_backward_pass():
    cut, reference = ForwardInterface(synthesizer(3, 5), optim="sgd", lr=LR), Regression(3, 5, LR)
    pairs = [(double(4, 5), double(4, 3)) for _ in range(3)]
    losses = [cut(h, x).sum() for h, x in pairs]
    for loss, (h, x) in zip(losses, pairs, strict=True):
        loss.backward()
        reference.learn(x, h)
    assert_matches_regression(cut.synthesizer, reference)


def test_lessons_use_the_prediction_before_an_inplace_change():
    learned = []
    for inplace in (False, True):
        torch.manual_seed(1)
        both = BidirectionalInterface(Unscaled(3, 5), Unscaled(5, 5), optim="sgd", lr=LR)
        h, x = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3)
        for _ in range(2):
            F.relu(both(h * 1, x), inplace=inplace).square().sum().backward()
        learned.append(both.state_dict())
        stats = both.forward_interface.stats()
        learned[-1]["stats"] = torch.tensor(stats)
    start = "forward_interface._dni.synthesizer."
    activation = [{k: v for k, v in s.items() if k.startswith(start)} for s in learned]
    assert torch.equal(learned[0]["stats"], learned[1]["stats"])
    assert activation[0]
    assert all(torch.equal(activation[0][key], activation[1][key]) for key in activation[0])
