"""Interfaces by hand and wrapped are equal; both agree with autograd where they can."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    DNI,
    Linear_DNI,
    synthesizer_context,
)
from tests.support.primitives import close, double, every_kind, synthesizer


class Known(nn.Module):
    """The gradient of L = sum(h^2) / 2 by h."""

    normalize_target = False

    def forward(self, trigger, context):
        return trigger


def test_gradcheck_with_a_synthesizer_that_knows_the_gradient():
    cut = BackwardInterface(Known(), like=double(1))
    w = double(3, 4)

    def by_hand(x):
        return ByHand.apply(torch.tanh(x @ w), cut)

    assert torch.autograd.gradcheck(by_hand, double(5, 3).requires_grad_())
    x = double(5, 3).requires_grad_()
    (expected,) = torch.autograd.grad(torch.tanh(x @ w).square().sum() / 2, x)
    (found,) = torch.autograd.grad(cut(torch.tanh(x @ w)).square().sum() / 2, x)
    close(found, expected)
    # Whatever the loss: the synthetic gradient takes the true one's place.
    (found,) = torch.autograd.grad(cut(torch.tanh(x @ w)).exp().sum(), x)
    close(found, expected)


def test_gradcheck_of_what_is_handed_through_and_of_the_synthesizer():
    cut = BackwardInterface(synthesizer(4, 4)).eval()
    assert torch.autograd.gradcheck(cut, double(5, 4).requires_grad_())
    basic = BasicSynthesizer(3, 2, 6, 4, 2).double()
    nn.init.normal_(basic.layers.last.weight)
    inputs = (double(5, 4).requires_grad_(), double(5, 2).requires_grad_())
    assert torch.autograd.gradcheck(basic, inputs)


class ByHand(torch.autograd.Function):
    """The loss's gradient by what ``backward`` sends into the graph."""

    @staticmethod
    def forward(ctx, h, cut):
        ctx.cut = cut
        ctx.save_for_backward(h)
        return h.square().sum() / 2

    @staticmethod
    def backward(ctx, grad):
        leaf = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.cut.backward(leaf.clone(), factor=grad.item())
        return leaf.grad, None


class ByHandNetwork(nn.Module):
    """Two cuts, as the wrapper would place them."""

    def __init__(self, network, interfaces):
        super().__init__()
        self.network = network
        self.interfaces = nn.ModuleList(interfaces)

    def forward(self, x):
        h = self.network[:3](x)
        h = self._cut(0, h, x)
        h = self.network[3:6](h)
        return self.network[6:](self._cut(1, h, x))

    def _cut(self, i, h, x):
        if isinstance(self.interfaces[i], BidirectionalInterface):
            return self.interfaces[i](h, x)
        return self.interfaces[i](h)


def mlp():
    return nn.Sequential(
        nn.Linear(6, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


@pytest.mark.parametrize("context", [None, 3])
@pytest.mark.parametrize("unlock", ["update", "full"])
@pytest.mark.parametrize("kind", [Linear_DNI, BasicSynthesizer])
def test_by_hand_and_wrapped_are_equal_after_twenty_steps(unlock, context, kind):
    network, example = mlp(), torch.randn(8, 6)
    wrapped = DNI(
        copy.deepcopy(network),
        dni_network=kind,
        unlock=unlock,
        context_size=context,
        example_input=example,
    )
    interfaces = []
    for interface in wrapped.interfaces.values():
        if unlock == "update":
            weights = copy.deepcopy(interface.synthesizer)
            interfaces.append(BackwardInterface(weights, context_size=context))
        else:
            ahead = copy.deepcopy(interface.forward_interface.synthesizer)
            back = copy.deepcopy(interface.backward_interface.synthesizer)
            interfaces.append(BidirectionalInterface(ahead, back, context_size=context))
    by_hand = ByHandNetwork(network, interfaces)
    nets = [wrapped, by_hand]
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-2) for net in nets]
    for _ in range(20):
        x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            with synthesizer_context(None if context is None else y):
                loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
    start = mlp()
    for ours, theirs, other in zip(
        wrapped.network.parameters(), network.parameters(), start.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, other)
    x = torch.randn(4, 6)
    assert torch.equal(wrapped.eval()(x), by_hand.eval()(x))


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize("kind", ["linear", "rnn", "conv", "local", "basic"])
def test_every_kind_of_synthesizer_learns_in_an_interface(kind, optim):
    interface, shape = every_kind(optim)[kind]
    labels = torch.randint(0, 3, (4,))
    before = copy.deepcopy([*interface.synthesizer.parameters()])
    optimizer = None if optim else torch.optim.Adam(interface.parameters(), lr=1e-2)
    for _ in range(3):
        h = torch.randn(shape, requires_grad=True)
        with synthesizer_context(labels):
            out = interface(h)
        (out * torch.randn(shape)).sum().backward()
        assert h.grad.isfinite().all()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
    assert interface.stats().updates == 3
    assert (interface.hidden is not None) == (kind == "rnn")
    after = [*interface.synthesizer.parameters()]
    assert any(not torch.equal(b, a) for b, a in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)


def test_a_synthesizer_of_ones_own_gets_the_context_as_it_was_given():
    class Mine(nn.Module):
        def forward(self, trigger, context):
            given.append(context)
            return torch.zeros_like(trigger)

    class Sized(Mine):
        context_dim = 3
        feature_dim = 1

    given, labels = [], torch.tensor([0, 2])
    with synthesizer_context(labels):
        BackwardInterface(Mine()).receive(torch.randn(2, 4))
        BackwardInterface(Sized()).receive(torch.randn(2, 4, 5))
    BackwardInterface(Mine()).receive(torch.randn(2, 4))
    assert torch.equal(given[0], labels)
    assert torch.equal(given[1], F.one_hot(labels, 3).float()[:, :, None].expand(2, 3, 5))
    assert given[2] is None
    net = DNI(mlp(), dni_network=lambda name, module, output: Mine())
    with synthesizer_context(labels):
        net(torch.randn(2, 6)).sum().backward()
    assert torch.equal(given[-1], labels)
