"""Interfaces by hand: each primitive against a reference written from the paper's equations."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from reference import Chain, Recurrent, Regression, Unlocked
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    backward,
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    CheckpointError,
    Conv2d_DNI,
    defer_backward,
    DNI,
    ForwardInterface,
    Linear_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
    SynthesizerError,
    UnidirectionalInterface,
)

LR = 0.3


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def linear(before, after):
    return nn.Linear(before, after, bias=False).double()


def synthesizer(before, after):
    return BasicSynthesizer(after, trigger_dim=before).double()


class Trained:
    """An interface's synthesizer trained by itself, or by an optimizer of the user's."""

    def __init__(self, itself):
        self.options = {"optim": "sgd", "lr": LR} if itself else {"optim": None}
        self.itself = itself

    def step(self, module):
        if not self.itself:
            torch.optim.SGD(module.parameters(), LR).step()


@pytest.fixture(params=[True, False], ids=["itself", "users-optimizer"])
def trained(request):
    return Trained(request.param)


def agrees(found, reference):
    close(found.layers.last.weight.detach(), reference.a.t())
    close(found.layers.last.bias.detach(), reference.b)


def frozen_step(network, interfaces, trained):
    """The references' weights stand still: only the synthesizers learn."""
    for interface in interfaces:
        trained.step(interface)
        interface.zero_grad()
    network.zero_grad()


@pytest.mark.parametrize("zero_first", [True, False])
def test_update_unlock_follows_the_paper(trained, zero_first):
    layers = [linear(4, 5), linear(5, 5), linear(5, 2)]
    reference = Chain([layer.weight.detach() for layer in layers], LR)
    cuts = [BackwardInterface(synthesizer(5, 5), **trained.options) for _ in range(2)]
    network = nn.ModuleList(layers)
    for _ in range(6):
        x = double(6, 4)
        expected = reference.gradients(x)
        if zero_first:
            network.zero_grad()
        h1 = cuts[0](torch.tanh(layers[0](x)))
        h2 = cuts[1](torch.tanh(layers[1](h1)))
        loss = layers[2](h2).square().mean()
        if not zero_first:
            network.zero_grad()
        loss.backward()
        for layer, grad in zip(layers, expected, strict=True):
            close(layer.weight.grad, grad.t())
        frozen_step(network, cuts, trained)
    for cut, regression in zip(cuts, reference.cuts, strict=True):
        agrees(cut.synthesizer, regression)
        assert cut.stats().updates == 6


def test_the_users_optimizer_finds_the_gradients_in_the_same_pass():
    """Of the mean squared error in normalised units, and added to what is there."""
    cut = BackwardInterface(synthesizer(4, 4), optim=None)
    layer = linear(3, 4)
    assert {*map(id, cut.parameters())} == {*map(id, cut.synthesizer.parameters())}
    target = double(5, 4)
    for repeat in (1, 2):
        h = torch.tanh(layer(double(5, 3)))
        (cut(h) * target).sum().backward()
        bias = cut.synthesizer.layers.last.bias
        rms = target.square().mean().sqrt()
        close(bias.grad, -2 * (target / rms).sum(0) / target.numel() * repeat)


def test_forward_interface_follows_the_paper(trained):
    front, behind = linear(4, 5), linear(5, 2)
    reference = Regression(4, 5, LR)
    cut = ForwardInterface(synthesizer(4, 5), **trained.options)
    for _ in range(6):
        x = double(6, 4)
        h = torch.tanh(front(x)).detach()
        predicted = reference.predict(x)
        crossed = cut(h, x)
        close(crossed.detach(), predicted)
        reference.learn(x, h)
        behind(crossed).square().mean().backward()
        trained.step(cut)
        cut.zero_grad()
    agrees(cut.synthesizer, reference)


def test_forward_interface_alone_warns_once_that_it_breaks_backpropagation():
    front, cut = nn.Linear(4, 5), ForwardInterface(BasicSynthesizer(5, trigger_dim=4))
    x = torch.randn(6, 4)
    with pytest.warns(UserWarning, match="BidirectionalInterface"):
        cut(front(x), x).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut(front(x), x).sum().backward()
    assert front.weight.grad is None


def test_full_unlock_follows_the_paper(trained):
    front, behind = linear(4, 5), linear(5, 2)
    reference = Unlocked([front.weight.detach(), behind.weight.detach()], LR)
    cut = BidirectionalInterface(synthesizer(4, 5), synthesizer(5, 5), **trained.options)
    for _ in range(6):
        x = double(6, 4)
        expected = reference.gradients(x)
        behind(cut(torch.tanh(front(x)), x)).square().mean().backward()
        close(front.weight.grad, expected[0].t())
        close(behind.weight.grad, expected[1].t())
        frozen_step(nn.ModuleList([front, behind]), [cut], trained)
    agrees(cut.forward_interface.synthesizer, reference.ahead)
    agrees(cut.backward_interface.synthesizer, reference.back)


def test_halves_that_only_send_and_receive_follow_the_paper(trained):
    front, behind = linear(4, 5), linear(5, 2)
    reference = Unlocked([front.weight.detach(), behind.weight.detach()], LR)
    ours = BidirectionalInterface(synthesizer(4, 5), synthesizer(5, 5), **trained.options)
    theirs = copy.deepcopy(ours)
    for _ in range(6):
        x = double(6, 4)
        expected = reference.gradients(x, together=False)
        ours.send(torch.tanh(front(x)), x)  # its parameters have their gradients now
        close(front.weight.grad, expected[0].t())
        behind(theirs.receive(x)).square().mean().backward()
        close(behind.weight.grad, expected[1].t())
        frozen_step(nn.ModuleList([front, behind]), [ours, theirs], trained)
        theirs.forward_interface.load_state_dict(ours.forward_interface.state_dict())
        ours.backward_interface.load_state_dict(theirs.backward_interface.state_dict())
    agrees(theirs.forward_interface.synthesizer, reference.ahead)
    agrees(ours.backward_interface.synthesizer, reference.back)


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_truncated_recurrence_follows_the_paper(trained, factor):
    u, w, v = linear(4, 4), linear(3, 4), linear(4, 2)
    weights = nn.ModuleList([u, w, v])
    reference = Recurrent([layer.weight.detach() for layer in weights], LR, factor)
    future = BackwardInterface(synthesizer(4, 4), **trained.options)
    state = expected_state = double(5, 4)
    for _ in range(6):
        xs, ys = double(3, 5, 3), double(3, 5, 2)
        expected_state, expected = reference.gradients(expected_state, xs, ys)
        with defer_backward():
            state, loss = future.make_trigger(state), 0
            for x, y in zip(xs, ys, strict=True):
                state = torch.tanh(u(state) + w(x))
                loss = loss + F.mse_loss(v(state), y)
            backward(loss)
            future.backward(state, factor)
            assert u.weight.grad is None
        for layer, grad in zip(weights, expected, strict=True):
            close(layer.weight.grad, grad.t())
        frozen_step(weights, [future], trained)
        close(state.detach(), expected_state)
    agrees(future.synthesizer, reference.future)


def test_send_and_receive_of_each_direction(trained):
    """``send`` teaches any message by any trigger, ``receive`` predicts it."""
    for kind in (UnidirectionalInterface, ForwardInterface):
        interface = kind(synthesizer(4, 5), **trained.options)
        reference = Regression(4, 5, LR)
        for _ in range(5):
            trigger, message = double(6, 4), double(6, 5)
            close(interface.receive(trigger), reference.predict(trigger))
            interface.send(message, trigger)
            reference.learn(trigger, message)
            trained.step(interface)
            interface.zero_grad()
        agrees(interface.synthesizer, reference)
    assert not interface.receive(trigger.requires_grad_()).requires_grad


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


def every_kind(optim="adam"):
    options = {"optim": optim, "context_size": 3}
    return {
        "linear": (BackwardInterface(Linear_DNI(8, 7, 5), **options), (4, 5)),
        "rnn": (BackwardInterface(RNN_DNI(8, 7, 5), **options), (4, 6, 5)),
        "conv": (BackwardInterface(Conv2d_DNI(8, 7, 5), **options), (4, 5, 6, 6)),
        "local": (BackwardInterface(LocalLoss_DNI(5, 7, 3), **options), (4, 5)),
        "basic": (BackwardInterface(BasicSynthesizer(5, 1, 7, context_dim=3), optim=optim), (4, 5)),
    }


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
