"""The full unlock: parts that run on synthetic activations and learn from synthetic gradients."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    BasicSynthesizer,
    BidirectionalInterface,
    DNI,
    DNIError,
    synthesizer_context,
    SynthesizerError,
)
from tests.support.zoo import relu_mlp, ZOO


def test_full_unlock_keeps_no_part_waiting_for_the_forward_pass():
    """What is behind a cut sees the prediction alone, which is zero at first."""
    network, x = relu_mlp(1), torch.randn(4, 6)
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
    net = DNI(relu_mlp().eval(), unlock="full", example_input=torch.randn(4, 6))
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

    net = DNI(relu_mlp(1), unlock="full", forward_network=make, context_size=3)
    for _ in range(2):
        with synthesizer_context(torch.zeros(4, dtype=torch.int64)):
            net(torch.randn(4, 6)).sum().backward()
    assert asked == [("1", (4, 6), (4, 6))]
    assert net.interfaces["1"].forward_interface.context_size is None
    assert net.interfaces["1"].backward_interface.context_size == 3
    for wrong in ({"forward_network": make}, {"unlock": "full", "forward_network": 3}):
        with pytest.raises(SynthesizerError, match="forward_network"):
            DNI(relu_mlp(), **wrong)
    with pytest.raises(SynthesizerError, match="must return a module"):
        DNI(
            relu_mlp(),
            unlock="full",
            forward_network=lambda *_: 3,
            example_input=torch.randn(2, 6),
        )
    with pytest.raises(DNIError, match="'update' or 'full'"):
        DNI(relu_mlp(), unlock="forward")


@pytest.mark.parametrize("options", [{"unlock": "full"}, {"update_probability": 0.5}])
def test_a_module_called_past_the_network(options):
    network = relu_mlp()
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
    network = relu_mlp()
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


@pytest.mark.parametrize("options", [{"unlock": "full"}, {"update_probability": 0.5}])
def test_unwrapping_and_evaluation_leave_no_hook(options):
    network = relu_mlp()
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
