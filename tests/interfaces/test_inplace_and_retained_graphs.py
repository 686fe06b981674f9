"""Interfaces by hand: what they leave alone, kept graphs, copies and checkpoints."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    CheckpointError,
    ForwardInterface,
    RNN_DNI,
    synthesizer_context,
    SynthesizerError,
    UnidirectionalInterface,
)
from tests.support.primitives import agrees, close, double, every_kind, linear, LR, synthesizer
from tests.support.reference import Regression


@pytest.mark.parametrize("optim", ["adam", None])
def test_predicting_leaves_no_trace(optim):
    for interface, shape in every_kind(optim).values():
        parameters = [*interface.synthesizer.parameters()]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        h = torch.randn(shape, requires_grad=True)
        with synthesizer_context(torch.randint(0, 3, (4,))):
            assert interface.receive(h).shape == h.shape
            interface.backward(h * 1)
        assert all(torch.equal(p.grad, torch.ones_like(p)) for p in parameters)
        assert interface.hidden is None
        assert interface.stats().updates == 0


def test_evaluation_and_no_grad_hand_the_input_through():
    h, x = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3)
    one = BackwardInterface(BasicSynthesizer(5))
    both = BidirectionalInterface(BasicSynthesizer(5, trigger_dim=3), BasicSynthesizer(5))
    ahead = both.forward_interface
    with torch.no_grad():
        assert one(h) is h
        assert one.make_trigger(h) is h
        assert both(h, x) is h
        assert ahead(h, x) is h
    for interface in (one, both):
        interface.eval()
    assert one(h) is h
    assert one.make_trigger(h) is h
    assert both(h, x) is h
    one.backward(h)
    one.send(h, h)
    both.send(h, x)
    assert h.grad is None
    assert one.stats().updates == both.stats().updates == ahead.stats().updates == 0


def test_what_follows_and_what_came_may_change_in_place():
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
                close(grad, other)
        expected = grads


class Plain(nn.Module):
    """Learns by autograd; its message is its output itself."""

    normalize_target = False

    def __init__(self, before, after):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(before, 6), nn.Tanh(), nn.Linear(6, after))

    def forward(self, trigger, context):
        return self.layers(trigger)


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize("make", [Plain, lambda i, o: BasicSynthesizer(o, 1, trigger_dim=i)])
def test_a_kept_graph_teaches_again_and_two_passes_may_be_under_way(make, optim):
    both = BidirectionalInterface(make(3, 5), make(5, 5), optim=optim)
    front, x = nn.Linear(3, 5), torch.randn(6, 3)
    losses = [both(front(x), x).square().sum() for _ in range(2)]
    losses[0].backward(retain_graph=True)
    losses[1].backward()
    losses[0].backward()
    assert both.stats().updates == both.forward_interface.stats().updates == 3


def test_passes_under_way_learn_from_what_the_synthesizer_has_become():
    cut, reference = ForwardInterface(synthesizer(3, 5), optim="sgd", lr=LR), Regression(3, 5, LR)
    pairs = [(double(4, 5), double(4, 3)) for _ in range(3)]
    losses = [cut(h, x).sum() for h, x in pairs]
    for loss, (h, x) in zip(losses, pairs, strict=True):
        loss.backward()
        reference.learn(x, h)
    agrees(cut.synthesizer, reference)


def test_what_is_learned_is_not_what_became_of_the_prediction():
    learned = []
    for inplace in (False, True):
        torch.manual_seed(1)
        both = BidirectionalInterface(Plain(3, 5), Plain(5, 5), optim="sgd", lr=LR)
        h, x = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3)
        for _ in range(2):
            F.relu(both(h * 1, x), inplace=inplace).square().sum().backward()
        learned.append(both.state_dict())
        stats = both.forward_interface.stats()
        learned[-1]["stats"] = torch.tensor(stats)
    ahead = [s["forward_interface._extra_state"]["synthesizer"] for s in learned]
    assert torch.equal(learned[0]["stats"], learned[1]["stats"])
    assert all(torch.equal(ahead[0][key], ahead[1][key]) for key in ahead[0])


def test_a_synthesizer_that_trains_itself_is_none_of_the_networks_parameters():
    cut = BackwardInterface(BasicSynthesizer(5))
    net = nn.Sequential(nn.Linear(3, 5), cut)
    assert len([*net.parameters()]) == 2
    assert cut in [*net.modules()]
    assert "BasicSynthesizer" in repr(net)
    net.apply(lambda m: [nn.init.ones_(p) for p in m.parameters(recurse=False)])
    assert not cut.synthesizer.layers.last.weight.any()
    net.double()
    assert cut.synthesizer.layers.last.weight.dtype == torch.float64
    net(double(4, 3)).sum().backward()
    assert cut.stats().updates == 1
    assert net.half()[1].synthesizer.layers.last.weight.dtype == torch.float32


def learn(cut, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        h = torch.randn(6, 5, generator=generator, requires_grad=True)
        x = torch.randn(6, 3, generator=generator)
        cut(h, x).square().sum().backward()
    return h.grad


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_going_on_from_a_copy_is_as_if_never_stopped(how, optim):
    def make():
        return BidirectionalInterface(
            BasicSynthesizer(5, 1, trigger_dim=3), RNN_DNI(5, 7, 5), optim=optim
        )

    cut = make()
    learn(cut, 3, 1)
    if how == "state_dict":
        file = io.BytesIO()
        torch.save(cut.state_dict(), file)
        file.seek(0)
        other = make()
        other.load_state_dict(torch.load(file, weights_only=True))
    else:
        other = copy.deepcopy(cut) if how == "deepcopy" else pickle.loads(pickle.dumps(cut))
    if optim is None:
        for one in (cut, other):
            one.zero_grad()
    assert torch.equal(learn(cut, 3, 2), learn(other, 3, 2))
    assert cut.stats() == other.stats()


def test_states_of_other_ways_of_training_do_not_fit():
    one, other = (BackwardInterface(BasicSynthesizer(5), optim=o) for o in ("adam", None))
    state = {"_extra_state": one.state_dict()["_extra_state"], **other.state_dict()}
    state["_extra_state"] = one.state_dict()["_extra_state"]
    with pytest.raises(CheckpointError, match="optim"):
        other.load_state_dict(state)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_wrong_sizes_of_a_basic_synthesizer(wrong):
    for name in ("hidden_dim", "trigger_dim", "context_dim"):
        with pytest.raises(SynthesizerError, match=name):
            BasicSynthesizer(4, 1, **{name: wrong})
    with pytest.raises(SynthesizerError, match="output_dim"):
        BasicSynthesizer(wrong)


def test_basic_synthesizer_starts_at_zero_and_goes_both_ways_alike():
    """The explicit backward pass is autograd's."""

    class Autograd(BasicSynthesizer):
        def forward(self, trigger, context=None):
            return super().forward(trigger, context)

    explicit = BasicSynthesizer(5, 2, 7, 4, 3).double()
    graph = Autograd(5, 2, 7, 4, 3).double()
    graph.load_state_dict(explicit.state_dict())
    assert graph.taped() is None
    ours, theirs = (UnidirectionalInterface(s) for s in (explicit, graph))
    with synthesizer_context(torch.tensor([0, 1, 2, 2, 1, 0])):
        assert not ours.receive(double(6, 4)).any()
        for _ in range(4):
            trigger, message = double(6, 4), double(6, 5)
            for interface in (ours, theirs):
                interface.send(message, trigger)
            close(ours.receive(trigger), theirs.receive(trigger))
    assert ours.receive is not None
    assert explicit.layers.last.weight.any()
