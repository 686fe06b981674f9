"""Eager learning: the default way's gradients, with one part's activations in memory."""

import copy
import gc
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from zoo import ZOO

from pytorch_dni import DNI, DNIError, Linear_DNI, LocalLoss_DNI, synthesizer_context

# Behind their default places: with a skip connection around, a branch, or a layer called twice.
ELSEWHERE = {
    "residual": "stem",
    "transformer": ["embedding", "blocks.layers.*"],
    "shared": "stem",
    "branches": "body",
}


def nets(name, **options):
    """The same network twice: the default way, and eagerly."""
    options = {"layers": ELSEWHERE.get(name), "recurrent": False, **options}
    torch.manual_seed(0)
    network = ZOO[name].build()
    made = []
    for eager in (False, True):
        torch.manual_seed(3)
        made.append(DNI(copy.deepcopy(network), eager=eager, **options))
    return made


def train(net, inputs, loss, labels=None, lr=0.05):
    torch.manual_seed(3)  # of synthesizers too, where they are made now
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    for x in inputs:
        optimizer.zero_grad()
        with synthesizer_context(labels):
            out = net(x)
        loss(out).backward()
        optimizer.step()


def agree(a, b):
    for ours, theirs in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert {n: s.updates for n, s in a.stats().items()} == {
        n: s.updates for n, s in b.stats().items()
    }
    for name, stats in a.stats().items():
        assert stats.loss == pytest.approx(b.stats()[name].loss, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("example", [False, True])
@pytest.mark.parametrize("name", ZOO)
def test_equal_to_the_default_way(name, example):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    # The first input places the cuts: the default way does that in its first step.
    default, eager = nets(name, example_input=inputs[0])
    if not example:
        eager = nets(name)[1]
    for net in (default, eager):
        train(net, inputs, ZOO[name].loss)
    agree(eager, default)
    assert any(stats.updates == 20 for stats in eager.stats().values())


@pytest.mark.parametrize("name", ["mlp", "cnn", "batchnorm_inplace", "transformer"])
def test_equal_with_local_losses(name):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    labels = torch.randint(3, (len(inputs[0]),))
    made = nets(name, dni_network=LocalLoss_DNI, context_size=3, example_input=inputs[0])
    for net in made:
        train(net, inputs, ZOO[name].loss, labels)
    agree(*made)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_equal_with_contexts_other_optimizers_and_several_steps(name):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    labels = torch.randint(3, (len(inputs[0]),))
    made = nets(name, context_size=3, grad_optim="sgd", grad_lr=0.1, grad_steps=3,
                example_input=inputs[0])  # fmt: skip
    for net in made:
        train(net, inputs, ZOO[name].loss, labels)
    agree(*made)


def test_equal_with_sparse_updates():
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(40)]
    made = nets("mlp", update_probability=0.5, example_input=inputs[0])
    for net in made:
        train(net, inputs, ZOO["mlp"].loss)
    agree(*made)


def test_a_share_of_the_true_gradient_goes_the_default_way():
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(20)]
    made = nets("mlp", bp_lambda=lambda step: 1.0 if step < 7 else 0.5 * (step < 12),
                example_input=inputs[0])  # fmt: skip
    for net in made:
        train(net, inputs, ZOO["mlp"].loss)
    agree(*made)


def loops():
    """Loops that people write; each is given a network, an optimizer, inputs and a loss."""

    def zeroed_between(net, opt, xs, loss):
        for x in xs:
            value = loss(net(x))
            opt.zero_grad()
            value.backward()
            opt.step()

    def accumulated(net, opt, xs, loss):
        for i, x in enumerate(xs):
            (loss(net(x)) / 4).backward()
            if i % 4 == 3:
                opt.step()
                opt.zero_grad()

    def two_at_once(net, opt, xs, loss):
        for x, y in zip(xs[::2], xs[1::2], strict=True):
            first = loss(net(x))
            second = loss(net(y))
            opt.zero_grad()
            first.backward()
            second.backward()
            opt.step()

    def one_sum(net, opt, xs, loss):
        for x, y in zip(xs[::2], xs[1::2], strict=True):
            opt.zero_grad()
            (loss(net(x)) + loss(net(y))).backward()
            opt.step()

    def clipped(net, opt, xs, loss):
        for x in xs:
            opt.zero_grad()
            loss(net(x)).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            opt.step()

    def not_backpropagated(net, opt, xs, loss):
        for i, x in enumerate(xs):
            value = loss(net(x))
            if i % 3:
                opt.zero_grad()
                value.backward()
                opt.step()

    def by_grad(net, opt, xs, loss):
        for x in xs:
            grads = torch.autograd.grad(loss(net(x)), [*net.parameters()])
            for p, grad in zip(net.parameters(), grads, strict=True):
                p.grad = grad
            opt.step()

    own = locals()
    return {name: own[name] for name in own}


@pytest.mark.parametrize("name", loops())
def test_the_users_loop(name):
    torch.manual_seed(5)
    inputs = [ZOO["batchnorm_inplace"].input() for _ in range(24)]
    made = nets("batchnorm_inplace", example_input=inputs[0])
    for net in made:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        loops()[name](net, optimizer, inputs, ZOO["batchnorm_inplace"].loss)
    if name not in ("two_at_once", "one_sum"):
        agree(*made)
        return
    # Parts predict as they run, not when the backward pass comes: near, not equal.
    assert all(stats.updates >= 12 for stats in made[1].stats().values())
    torch.manual_seed(0)
    start = ZOO["batchnorm_inplace"].build()
    for ours, was in zip(made[1].parameters(), start.parameters(), strict=True):
        assert ours.isfinite().all()
        assert not torch.equal(ours, was)


def test_nothing_reaches_a_parameter_before_the_backward_pass():
    net = nets("mlp")[1]
    for _ in range(3):
        ZOO["mlp"].loss(net(ZOO["mlp"].input())).backward()
    net.zero_grad()
    loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()))
    assert all(p.grad is None for p in net.parameters())
    kept = [p.clone() for i in net.interfaces.values() for p in i.synthesizer.parameters()]
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    now = [p for i in net.interfaces.values() for p in i.synthesizer.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(kept, now, strict=True))


def test_hooks_of_parameters_run_once_and_change_what_arrives():
    made = nets("mlp", example_input=ZOO["mlp"].input())
    calls = []
    for net in made:
        for i, parameter in enumerate(net.parameters()):
            parameter.register_hook(lambda grad, i=i: calls.append(i) or grad * 2)
            parameter.register_post_accumulate_grad_hook(lambda p: calls.append("after"))
        torch.manual_seed(7)
        train(net, [ZOO["mlp"].input() for _ in range(5)], ZOO["mlp"].loss)
    assert calls.count("after") == 2 * 5 * 6
    assert all(calls.count(i) == 2 * 5 for i in range(6))
    agree(*made)


@pytest.mark.parametrize("options", [{"recursive": False}, {"layers": ["0", "4"]}])
def test_a_cut_at_the_very_end(options):
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(10)]
    torch.manual_seed(0)
    network, made = ZOO["mlp"].build(), []
    for eager in (False, True):
        torch.manual_seed(3)
        example = {} if "recursive" in options else {"example_input": inputs[0]}
        made.append(DNI(copy.deepcopy(network), eager=eager, **options, **example))
    for net in made:
        train(net, inputs, ZOO["mlp"].loss)
    agree(*made)


def test_a_parameter_that_is_returned_as_it_is():
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
            self.spread = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.head(torch.relu(self.body(x))), self.spread

    net = DNI(Policy(), layers="body", eager=True)
    for _ in range(2):
        mean, spread = net(torch.randn(4, 6))
        (mean * spread).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_frozen_parameters():
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(10)]
    made = nets("mlp", example_input=inputs[0])
    for net in made:
        for name, parameter in net.network.named_parameters():
            parameter.requires_grad_(name not in ("0.weight", "2.weight", "2.bias"))
        train(net, inputs, ZOO["mlp"].loss)
        assert net.network[2].weight.grad is None
    agree(*made)


def test_an_input_that_needs_a_gradient_gets_it():
    grads = []
    for net in nets("mlp", example_input=ZOO["mlp"].input()):
        torch.manual_seed(7)
        train(net, [ZOO["mlp"].input() for _ in range(5)], ZOO["mlp"].loss)
        leaf = torch.ones(5, 6, requires_grad=True)
        made_from = torch.full((5, 6), 0.5, requires_grad=True)
        net(leaf).sum().backward()
        made = made_from * 2
        made.register_hook(lambda grad: grad * 3)
        net(made).sum().backward()
        grads.append((leaf.grad, made_from.grad))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.any()


@pytest.mark.parametrize("eager", [False, True])
def test_the_first_lesson_sees_the_activation_before_it_is_changed_in_place(eager):
    seen = []

    class Sees(Linear_DNI):
        def forward(self, input, hidden):
            seen.append(input)
            return super().forward(input, hidden)

    torch.manual_seed(0)
    net = DNI(ZOO["functional"].build(), layers="first", eager=eager, dni_network=Sees,
              example_input=ZOO["functional"].input())  # fmt: skip
    x = ZOO["functional"].input()
    wanted = net.network.first.weight.detach() @ x.t() + net.network.first.bias.detach()[:, None]
    ZOO["functional"].loss(net(x)).backward()
    torch.testing.assert_close(seen[-1], wanted.t())


def test_autocast():
    made = nets("mlp", example_input=ZOO["mlp"].input())
    for net in made:
        torch.manual_seed(7)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(10):
            with torch.autocast("cpu", torch.bfloat16):
                loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    agree(*made)


@pytest.mark.parametrize("autocast", [False, True])
def test_parameters_shared_between_parts(autocast):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = (nn.Linear(6, 6) for _ in range(3))
            self.second.weight, self.second.bias = self.first.weight, self.first.bias

        def forward(self, x):
            return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))

    torch.manual_seed(0)
    network = Tied()
    results = []
    for eager in (False, True):
        torch.manual_seed(3)
        net = DNI(copy.deepcopy(network), eager=eager, example_input=torch.randn(4, 6))
        torch.manual_seed(4)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for _ in range(3):
                kept = [p.clone() for i in net.interfaces.values() for p in i.weights]
                out = net(torch.randn(4, 6))
                # The parts behind reach into those before by what they share; nothing learns yet.
                now = [p for i in net.interfaces.values() for p in i.weights]
                assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
                out.float().square().mean().backward()
        results.append([p.grad for p in net.parameters()])
        assert all(stats.updates == 3 for stats in net.stats().values())
    for ours, theirs in zip(*results, strict=True):
        # What autocast rounds is added up in another order.
        tolerance = {"rtol": 1e-2, "atol": 1e-4} if autocast else {}
        torch.testing.assert_close(ours, theirs, **tolerance)


class Around(nn.Module):
    """A skip connection around the second layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.d(torch.relu(self.c(x + torch.relu(self.b(x)))))


class Outside(nn.Module):
    """What lies before the cut is returned as well."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        hidden = torch.relu(self.a(x))
        return self.b(torch.tanh(hidden)), hidden


class Twins(nn.Module):
    """One layer for two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.b(self.a(x[:, :3]) * self.a(x[:, 3:]))


class Tapped(nn.Module):
    """An activation within the first part is used behind the cut, where no weight tells of it."""

    def __init__(self):
        super().__init__()
        self.embedding, self.a, self.b = nn.Embedding(5, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = self.embedding(x)
        return self.b(self.a(x) + x)


NOT_APART = {
    "skip": (Around, "b", lambda: torch.randn(5, 6), "'b' does not separate"),
    "output": (Outside, "b", lambda: torch.randn(5, 6), "'b' does not separate"),
    "twice": (Twins, "a", lambda: torch.randn(5, 6), "'a' comes twice"),
    "tapped": (Tapped, "a", lambda: torch.randint(5, (4,)), "'a' does not separate"),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", NOT_APART)
def test_a_cut_that_does_not_separate_is_named_before_anything_changes(name, late):
    build, layers, make, words = NOT_APART[name]
    network = build()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DNIError, match=words):
        if late:
            DNI(network, layers=layers, eager=True)(make())
        else:
            DNI(network, layers=layers, eager=True, example_input=make())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in network.parameters())


def test_a_connection_that_comes_later_is_found_when_it_comes():
    network = Around()
    network.forward = lambda x: network.d(network.c(network.b(network.a(x))))
    net = DNI(network, layers="b", eager=True)
    net(torch.randn(5, 6)).sum().backward()
    del network.forward
    net.zero_grad()
    with pytest.raises(DNIError, match="'b' does not separate"):
        net(torch.randn(5, 6))
    assert all(p.grad is None for p in net.parameters())
    network.forward = lambda x: network.d(network.c(network.b(network.a(x))))
    net(torch.randn(5, 6)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


class Held:
    """A tensor that a graph has saved; counts those that are alive."""

    alive: set[int] = set()  # noqa: RUF012

    def __init__(self, tensor):
        self.tensor = tensor
        Held.alive.add(id(self))

    def __del__(self):
        Held.alive.discard(id(self))


@pytest.mark.parametrize("local", [False, True])
def test_activations_of_parts_that_have_run_are_gone(local):
    def held(depth, eager):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(depth)]
        options = {"dni_network": LocalLoss_DNI, "context_size": 3} if local else {}
        net = DNI(nn.Sequential(*layers, nn.Linear(16, 3)), eager=eager, **options)
        x, y = torch.randn(512, 16), torch.randint(3, (512,))
        for _ in range(3):
            gc.collect()
            Held.alive.clear()
            hooks = torch.autograd.graph.saved_tensors_hooks(Held, lambda kept: kept.tensor)
            with hooks, synthesizer_context(y if local else None):
                out = net(x)
            alive = len(Held.alive)
            F.cross_entropy(out, y).backward()
        return alive

    assert held(12, True) == held(4, True) < 6
    assert held(12, False) >= held(4, False) + 16


def test_checkpointed_parts_and_cuts_inside_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            x = checkpoint(lambda t: torch.relu(self.a(t)), x, use_reentrant=False)
            return self.c(torch.relu(self.b(x)))

    torch.manual_seed(0)
    network = Net()
    results = []
    for eager in (False, True):
        torch.manual_seed(3)
        net = DNI(copy.deepcopy(network), layers="b", eager=eager, example_input=torch.randn(4, 6))
        for _ in range(3):
            net(torch.ones(4, 6)).square().mean().backward()
        results.append([p.grad for p in net.parameters()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_several_backward_passes_through_one_graph_are_one_clear_error():
    net = nets("mlp")[1]
    loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()))
    loss.backward(retain_graph=True)
    with pytest.raises(DNIError, match="handed over already"):
        loss.backward()


def test_evaluation_leaves_all_alone():
    net = nets("mlp")[1]
    x = ZOO["mlp"].input()
    ZOO["mlp"].loss(net(x)).backward()
    net.eval()
    assert torch.equal(net(x), net.network(x))
    net.train()
    with torch.no_grad():
        net(x)
    assert net.stats()["1"].updates == 1
    bare = net.unwrap()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bare.modules())


@pytest.mark.parametrize("how", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_and_checkpoints_go_on(how):
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(12)]
    net = nets("mlp")[1]
    train(net, inputs[:6], ZOO["mlp"].loss)
    copied, loaded = how(net), nets("mlp")[1]
    loaded.load_state_dict(net.state_dict())
    for one in (net, copied, loaded):
        train(one, inputs[6:], ZOO["mlp"].loss)
    agree(copied, net)
    agree(loaded, net)
    assert loaded.describe() == net.describe()


def test_what_does_not_go_together():
    with pytest.raises(DNIError, match="eager takes unlock='update'"):
        DNI(ZOO["mlp"].build(), eager=True, unlock="full")
    with pytest.raises(DNIError, match="recurrent=False"):
        DNI(ZOO["lstm"].build(), eager=True)


def test_a_synthesizer_of_the_wrong_shape_leaves_no_gradient():
    net = DNI(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
        eager=True,
        dni_network=lambda name, module, output: Linear_DNI(8, 4, 5),
    )
    with pytest.raises(DNIError, match="predicts shape"):
        net(torch.randn(4, 6))
    assert all(p.grad is None for p in net.parameters())
