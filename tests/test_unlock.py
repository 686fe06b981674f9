"""The full unlock and sparse updates, in the wrapper."""

import copy
import io
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo import ZOO

from pytorch_dni import (
    BasicSynthesizer,
    BidirectionalInterface,
    DNI,
    DNIError,
    LocalLoss_DNI,
    synthesizer_context,
    SynthesizerError,
)


def mlp(depth=3):
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(6, 6), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(6, 2))


def grads(network):
    return [p.grad is not None for p in network.parameters()]


def test_full_unlock_keeps_no_part_waiting_for_the_forward_pass():
    """What is behind a cut sees the prediction alone, which is zero at first."""
    network, x = mlp(1), torch.randn(4, 6)
    net = DNI(network, unlock="full", example_input=x)
    assert isinstance(net.interfaces["1"], BidirectionalInterface)
    seen = []
    network[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    for _ in range(3):
        net(x).square().sum().backward()
    assert not seen[0].any()
    assert seen[2].any()
    assert not torch.equal(seen[2], F.relu(network[0](x)))
    bare = copy.deepcopy(network).eval()
    assert torch.equal(net.eval()(x), bare(x))
    assert net.stats()["1"].updates == net.stats("forward")["1"].updates == 3
    with pytest.raises(DNIError, match="direction"):
        net.stats("sideways")


def test_full_unlock_can_be_placed_in_evaluation():
    net = DNI(mlp().eval(), unlock="full", example_input=torch.randn(4, 6))
    assert [*net.interfaces] == ["1", "3", "5"]
    net.train()(torch.randn(4, 6)).sum().backward()
    assert all(stats.updates == 1 for stats in net.stats("forward").values())


def test_full_unlock_learns_both_predictions():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    net = DNI(network, unlock="full")
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    weight = torch.randn(6, 2)
    losses = []
    for _ in range(600):
        x = torch.randn(64, 6)
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), x @ weight)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert net.stats("forward")["1"].cosine > 0.95
    x = torch.randn(500, 6)
    assert F.mse_loss(net.eval()(x), x @ weight) < 0.3 * (x @ weight).square().mean()
    assert sum(losses[-50:]) < 0.2 * sum(losses[:50])


FLOATS = [name for name in ZOO if ZOO[name].input().is_floating_point()]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("sparse", [1.0, 0.5])
def test_full_unlock_on_every_architecture(name, sparse):
    example = ZOO[name]
    net = DNI(example.build(), unlock="full", update_probability=sparse)
    for _ in range(4 if sparse == 1 else 12):
        net.zero_grad()
        example.loss(net(example.input())).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert all(stats.updates > 0 for stats in net.stats("forward").values())
    example.loss(net.eval()(example.input()))


def test_full_unlock_needs_a_floating_point_input():
    net = DNI(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.Linear(3, 2)), unlock="full")
    with pytest.raises(DNIError, match="floating-point"):
        net(torch.zeros(2, 3, dtype=torch.int64))
    inner = nn.Sequential(nn.Embedding(5, 4), mlp_like())
    inner[1] = DNI(inner[1], unlock="full")
    inner(torch.zeros(2, dtype=torch.int64)).sum().backward()
    assert inner[1].interfaces


def mlp_like():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def stack(*layers):
    return lambda: nn.Sequential(*layers)


SHAPES = {
    "maps": (stack(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 3, 3)), (5, 2, 9, 9)),
    "1d": (stack(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 3)), (5, 2, 9)),
    "3d": (stack(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.Conv3d(4, 3, 3)), (5, 2, 5, 5, 5)),
    "flattened": (stack(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), (5, 2, 4)),
    "sequence": (stack(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), (5, 2, 8)),
    "unflattened": (stack(nn.Unflatten(1, (2, 4)), nn.Linear(4, 4), nn.Linear(4, 3)), (5, 8)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("context", [None, 3])
def test_default_synthesizers_of_activations_fit_all_shapes(name, context):
    build, shape = SHAPES[name]
    net = DNI(copy.deepcopy(build()), unlock="full", context_size=context)
    for _ in range(3):
        labels = torch.randint(0, 3, (shape[0],))
        with synthesizer_context(labels if context else None):
            net(torch.randn(shape)).square().mean().backward()
    (stats,) = net.stats("forward").values()
    assert stats.updates == 2  # the first pass shows where the cuts belong


def test_synthesizers_of_activations_may_be_ones_own():
    asked = []

    def make(name, input, output):
        asked.append((name, tuple(input.shape), tuple(output.shape)))
        return BasicSynthesizer(6, 2, 9, 6)

    net = DNI(mlp(1), unlock="full", forward_network=make, context_size=3)
    for _ in range(2):
        with synthesizer_context(torch.zeros(4, dtype=torch.int64)):
            net(torch.randn(4, 6)).sum().backward()
    assert asked == [("1", (4, 6), (4, 6))]
    assert net.interfaces["1"].forward_interface.context_size is None
    assert net.interfaces["1"].backward_interface.context_size == 3
    for wrong in ({"forward_network": make}, {"unlock": "full", "forward_network": 3}):
        with pytest.raises(SynthesizerError, match="forward_network"):
            DNI(mlp(), **wrong)
    with pytest.raises(SynthesizerError, match="must return a module"):
        DNI(
            mlp(),
            unlock="full",
            forward_network=lambda *_: 3,
            example_input=torch.randn(2, 6),
        )
    with pytest.raises(DNIError, match="'update' or 'full'"):
        DNI(mlp(), unlock="forward")


@pytest.mark.parametrize("options", [{"unlock": "full"}, {"update_probability": 0.5}])
def test_a_module_called_past_the_network(options):
    network = mlp()
    net = DNI(network, example_input=torch.randn(2, 6), **options)
    if "unlock" in options:
        with pytest.raises(DNIError, match="call the network itself"):
            network[:4](torch.randn(2, 6))
    else:
        network[:4](torch.randn(2, 6)).sum().backward()
        assert net.interfaces


@pytest.mark.parametrize("options", [{"unlock": "full"}, {"update_probability": 0.3}])
def test_resuming_is_as_if_never_stopped(options):
    torch.manual_seed(5)
    network = mlp()
    whole = DNI(copy.deepcopy(network), **options)

    def train(net, steps, seed):
        torch.manual_seed(seed)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.randn(8, 6)).square().mean().backward()
            optimizer.step()

    train(whole, 5, 1)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    torch.manual_seed(77)
    resumed = DNI(copy.deepcopy(network), **options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(whole)
    for net in (whole, resumed, copied):
        train(net, 6, 2)
    for ours, *others in zip(*(n.parameters() for n in (whole, resumed, copied)), strict=True):
        assert all(torch.equal(ours, other) for other in others)
    assert whole.stats() == resumed.stats() == copied.stats()


def test_each_part_learns_in_its_share_of_the_steps_by_itself():
    torch.manual_seed(2)
    network, x = mlp(), torch.randn(4, 6)
    net = DNI(network, update_probability=0.25, example_input=x, grad_steps=1)
    counts, together = Counter(), Counter()
    for _ in range(800):
        net.zero_grad()
        net(x).square().sum().backward()
        parts = tuple(grads(network)[::2])
        counts.update(i for i, learned in enumerate(parts) if learned)
        together[parts] += 1
    assert all(160 < counts[i] < 240 for i in range(4)), counts
    assert len(together) == 16  # in any combination
    # A synthesizer learns where the part behind it does.
    updates = [stats.updates for stats in net.stats().values()]
    assert updates == [counts[1], counts[2], counts[3]]


def test_activations_are_learned_where_the_part_in_front_learns():
    network, x = mlp(1), torch.randn(4, 6)
    net = DNI(network, update_probability=0.4, unlock="full", example_input=x)
    learned = 0
    for _ in range(50):
        net.zero_grad()
        net(x).square().sum().backward()
        learned += network[0].weight.grad is not None
    assert 5 < net.stats("forward")["1"].updates == learned < 45


def test_steps_count_where_no_cut_is_reached():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.cut, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            self.cut(x)
            return self.last(x)

    network = Branches()
    net = DNI(network, layers="cut", update_probability=0.2, example_input=torch.randn(4, 6))
    learned = 0
    for _ in range(100):
        net.zero_grad()
        net(torch.randn(4, 6)).sum().backward()
        learned += network.last.weight.grad is not None
    assert 5 < learned < 45


def test_a_part_learns_though_the_one_behind_it_does_not():
    torch.manual_seed(2)
    network, x = mlp(1), torch.randn(4, 6)
    net = DNI(network, update_probability=0.5, example_input=x)
    for _ in range(20):
        net(x).square().sum().backward()
    seen = set()
    for _ in range(40):
        net.zero_grad()
        net(x).square().sum().backward()
        front, behind = grads(network)[::2]
        seen.add((front, behind))
        if front:
            assert network[0].weight.grad.any()
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


def test_gradients_of_parts_that_learn_are_those_of_the_dense_way():
    """With the same synthesizers: all else stands still."""
    network = mlp().double()
    twin = copy.deepcopy(network)
    net = DNI(
        network, update_probability=0.5, example_input=torch.randn(2, 6).double(), grad_lr=0.0
    )
    dense = DNI(twin, example_input=torch.randn(2, 6).double(), grad_lr=0.0)
    for interfaces in zip(net.interfaces.values(), dense.interfaces.values(), strict=True):
        last = interfaces[0].synthesizer.layers.last
        nn.init.normal_(last.weight)
        interfaces[1].synthesizer.load_state_dict(interfaces[0].synthesizer.state_dict())
        for interface in interfaces:
            interface.scale.load_state_dict({"mean_square": 4.0, "count": 10**9})
    checked = 0
    for _ in range(12):
        x = torch.randn(4, 6).double()
        for one in (net, dense):
            one.zero_grad()
            one(x).square().sum().backward()
            for interface in one.interfaces.values():
                interface.scale.load_state_dict({"mean_square": 4.0, "count": 10**9})
        pairs = zip(network.parameters(), dense.network.parameters(), strict=True)
        for ours, theirs in pairs:
            if ours.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
                checked += 1
    assert checked > 20


def test_draws_come_from_the_seed_and_leave_the_users_random_numbers_alone():
    def run(seed):
        torch.manual_seed(seed)
        network = mlp()
        net = DNI(network, update_probability=0.5, example_input=torch.zeros(2, 6))
        learned = []
        for _ in range(12):
            net.zero_grad()
            net(torch.ones(2, 6)).sum().backward()
            learned.append(tuple(grads(network)))
        return learned, torch.rand(3)

    assert run(1)[0] == run(1)[0]
    assert run(1)[0] != run(2)[0]
    rest = run(1)[1]
    torch.manual_seed(1)
    mlp()
    assert torch.equal(rest, torch.rand(3))


@pytest.mark.parametrize("name", ZOO)
def test_sparse_updates_on_every_architecture(name):
    example = ZOO[name]
    torch.manual_seed(0)
    bare = example.build()
    net = DNI(copy.deepcopy(bare), update_probability=0.5, recurrent=False)
    for step in range(6):
        x = example.input()
        torch.manual_seed(step)
        expected = example.loss(bare(x))
        torch.manual_seed(step)
        net.zero_grad()
        loss = example.loss(net(x))
        assert torch.equal(loss, expected)
        loss.backward()
    assert any(stats.updates for stats in net.stats().values())


class Pair(NamedTuple):
    first: torch.Tensor
    second: object


@dataclass
class Record:
    logits: torch.Tensor
    count: int = 3


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: (t, [t * 2], 5),
        lambda t: {"a": t, "b": None},
        lambda t: Pair(t, (t,)),
        lambda t: Record(t),
    ],
)
def test_the_last_part_sleeps_whatever_the_network_returns(wrap):
    class Returns(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp(1)

        def forward(self, x):
            return wrap(self.inner(x))

    def tensors(output):
        if isinstance(output, torch.Tensor):
            return [output]
        if isinstance(output, Record):
            return [output.logits]
        children = output.values() if isinstance(output, dict) else output
        if not isinstance(output, (dict, tuple, list)):
            return []
        return [t for child in children for t in tensors(child)]

    network, x = Returns(), torch.randn(3, 6)
    net = DNI(network, update_probability=0.3, example_input=x)
    slept = 0
    for _ in range(30):
        net.zero_grad()
        output = net(x)
        assert type(output) is type(network.eval()(x))
        network.train()
        sum(t.sum() for t in tensors(output)).backward()
        slept += network.inner[2].weight.grad is None
    assert 10 < slept < 30


def test_local_losses_learn_while_the_part_behind_sleeps():
    torch.manual_seed(0)
    network = mlp(1)
    net = DNI(
        network,
        dni_network=LocalLoss_DNI,
        context_size=2,
        update_probability=0.5,
        example_input=torch.zeros(4, 6),
        grad_steps=1,
    )
    head = net.interfaces["1"].synthesizer.head.last.weight
    alone = 0
    for _ in range(30):
        before = head.clone()
        net.zero_grad()
        with synthesizer_context(torch.tensor([0, 1, 1, 0])):
            net(torch.randn(4, 6)).sum().backward()
        front, behind = grads(network)[::2]
        assert torch.equal(before, head) == (not front and not behind)
        assert head.grad is None
        alone += front and not behind
    assert alone


def test_synthesizers_take_more_steps_where_updates_are_sparse():
    def after(**options):
        torch.manual_seed(0)
        net = DNI(mlp(1), example_input=torch.zeros(4, 6), grad_optim="sgd", grad_lr=0.1, **options)
        torch.manual_seed(1)
        net(torch.randn(4, 6)).square().sum().backward()
        assert net.stats()["1"].updates == net.interfaces["1"].scale.count == 1
        return net.interfaces["1"].synthesizer.layers.last.bias.detach()

    one, two, three = (after(grad_steps=n) for n in (1, 2, 3))
    assert torch.equal(after(), one)
    assert one.norm() < two.norm() < three.norm()
    for probability, steps in ((1.0, 1), (0.5, 2), (0.1, 10), (0.01, 10)):
        net = DNI(mlp(1), update_probability=probability)
        assert net._cuts.learner.repeats == steps
    local = {"dni_network": LocalLoss_DNI, "context_size": 2}
    assert DNI(mlp(1), update_probability=0.1, **local)._cuts.learner.repeats == 1
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(SynthesizerError, match="grad_steps"):
            DNI(mlp(1), grad_steps=wrong)


def test_repeated_steps_are_those_on_the_same_lesson():
    """Against a loop of gradient steps in float64."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False)
    ).double()
    net = DNI(
        network,
        dni_network=BasicSynthesizer,
        example_input=torch.zeros(5, 3).double(),
        grad_optim="sgd",
        grad_lr=0.2,
        grad_steps=4,
    )
    a, b = torch.zeros(4, 4).double(), torch.zeros(4).double()
    x = torch.randn(5, 3).double()
    net(x).square().sum().backward()
    h = torch.tanh(x @ network[0].weight.t())
    true = 2 * h @ network[2].weight.t() @ network[2].weight
    target = true / true.square().mean().sqrt()
    for _ in range(4):
        error = 2 * (h @ a + b - target) / target.numel()
        a, b = a - 0.2 * h.t() @ error, b - 0.2 * error.sum(0)
    last = net.interfaces["1"].synthesizer.layers.last
    torch.testing.assert_close(last.weight.detach(), a.t(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(last.bias.detach(), b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrong", [0, -0.1, 1.1, "1", None, True])
def test_wrong_probabilities(wrong):
    with pytest.raises(DNIError, match="update_probability"):
        DNI(mlp(), update_probability=wrong)


@pytest.mark.parametrize("options", [{"unlock": "full"}, {"update_probability": 0.5}])
def test_unwrapping_and_evaluation_leave_no_hook(options):
    network = mlp()
    net = DNI(network, **options)
    net(torch.randn(3, 6)).sum().backward()

    def hooks():
        return [h for m in network.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]

    assert hooks()
    net.eval()
    assert not hooks()
    net.train()
    net.unwrap()
    assert not hooks()
    assert net._cuts.given.input is None
