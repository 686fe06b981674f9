"""``defer_backward``: one pass at the end of a scope, and none if the scope fails."""

import threading

import pytest
import torch
from torch import nn

from pytorch_dni import (
    backward,
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    defer_backward,
    DNIError,
    Linear_DNI,
    RNN_DNI,
    synthesizer_context,
)
from tests.support.checkpoints import assert_same_state


def graph():
    x = torch.randn(3, 4, requires_grad=True)
    h = torch.tanh(x)
    return x, h, (h**2).sum(), (h**3).sum()


def test_gradients_are_propagated_in_one_pass():
    x, h, first, second = graph()
    passes = []
    h.register_hook(lambda grad: passes.append(grad))
    (expected,) = torch.autograd.grad(first + second + (h * 2).sum(), x, retain_graph=True)
    passes.clear()
    with defer_backward():
        backward(first)
        backward(second)
        backward(h, torch.full_like(h, 2.0))
        assert x.grad is None
    assert len(passes) == 1
    torch.testing.assert_close(x.grad, expected)


def test_the_same_tensor_may_be_passed_twice():
    x, _, first, _ = graph()
    (expected,) = torch.autograd.grad(2 * first, x, retain_graph=True)
    with defer_backward():
        backward(first)
        backward(first)
    torch.testing.assert_close(x.grad, expected)


def test_outside_of_a_scope_backward_runs_at_once():
    x, _, first, _ = graph()
    backward(first)
    assert x.grad is not None


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize(
    "make", [lambda: BasicSynthesizer(4), lambda: RNN_DNI(4, 5, 4), lambda: Linear_DNI(4, 5, 4)]
)
def test_a_scope_whose_body_raises_changes_nothing(optim, make):
    interface = BackwardInterface(make(), optim=optim)
    both = BidirectionalInterface(BasicSynthesizer(4), make(), optim=optim)
    before = interface.state_dict()
    x, h, first, _ = graph()
    with pytest.raises(KeyError), defer_backward():
        backward(first)
        interface.backward(h)
        interface.send(h, h)
        both.send(h, x.detach())
        raise KeyError
    assert x.grad is None
    assert all(p.grad is None for p in interface.synthesizer.parameters())
    after = interface.state_dict()
    assert after["_dni.moments.updates"] == before["_dni.moments.updates"] == 0
    assert_same_state(after, before)
    assert interface.hidden is None
    assert both.forward_interface.stats().updates == 0
    backward(first)  # No scope is left open.
    assert x.grad is not None


def test_an_error_in_the_deferred_pass_closes_the_scope():
    _, _, first, _ = graph()
    first.backward()
    with pytest.raises(RuntimeError), defer_backward():
        backward(first)
    x, _, first, _ = graph()
    backward(first)
    assert x.grad is not None


def test_scopes_do_not_nest():
    x, _, first, _ = graph()
    with pytest.raises(DNIError, match="nest"), defer_backward(), defer_backward():
        backward(first)
    assert x.grad is None
    with defer_backward():
        backward(first)
    assert x.grad is not None


def test_scopes_of_threads_are_independent():
    barrier = threading.Barrier(2)
    found, seen = {}, {}

    def work(name, factor):
        x = torch.ones(2, requires_grad=True)
        with defer_backward():
            backward((factor * x).sum())
            barrier.wait(timeout=60)  # Both scopes are open.
            seen[name] = x.grad
            barrier.wait(timeout=60)
        found[name] = x.grad.tolist()

    threads = [threading.Thread(target=work, args=(n, n)) for n in (2.0, 3.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {2.0: None, 3.0: None}
    assert found == {2.0: [2.0, 2.0], 3.0: [3.0, 3.0]}
    with defer_backward():
        done = []
        thread = threading.Thread(target=lambda: (backward_at_once(), done.append(1)))
        thread.start()
        thread.join()
    assert done


def backward_at_once():
    x = torch.ones(2, requires_grad=True)
    backward(x.sum())
    assert x.grad is not None


def test_several_lessons_of_one_interface_are_one_optimizer_step():
    torch.manual_seed(3)
    triggers, messages = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    interface = BackwardInterface(BasicSynthesizer(4), optim="sgd", lr=0.1)
    with defer_backward():
        for trigger, message in zip(triggers, messages, strict=True):
            interface.send(message, trigger)
        assert not interface.synthesizer.layers.last.weight.any()
    assert interface.stats().updates == 2
    assert interface.learner.steps == 1
    assert interface.synthesizer.layers.last.weight.any()


def test_lessons_use_the_context_of_their_call():
    interface = BackwardInterface(BasicSynthesizer(4, context_dim=2), optim="sgd", lr=0.5)
    with defer_backward(), synthesizer_context(torch.tensor([1, 1, 1])):
        interface.send(torch.randn(3, 4), torch.zeros(3, 4))
    weight = interface.synthesizer.layers.last.weight
    assert not weight[:, 4].any()
    assert weight[:, 5].any()


def test_send_waits_for_the_end_of_the_scope():
    layer, x = nn.Linear(3, 4), torch.randn(5, 3)
    both = BidirectionalInterface(BasicSynthesizer(4, trigger_dim=3), BasicSynthesizer(4))
    with defer_backward():
        both.send(layer(x), x)
        assert layer.weight.grad is None
        assert both.forward_interface.stats().updates == 0
    assert layer.weight.grad is not None
    assert both.forward_interface.stats().updates == 1


def test_wrong_tensors_are_errors():
    x, h, _, _ = graph()
    with pytest.raises(DNIError, match="needs no gradient"):
        backward(torch.ones(()))
    with pytest.raises(DNIError, match="needs a gradient"):
        backward(h)
    with pytest.raises(DNIError, match=r"\(2, 4\)"):
        backward(h, torch.ones(2, 4))
    assert x.grad is None
