"""``layers=None`` on networks with connections around their layers."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from pytorch_dni import DNI, DNIError
from tasks.char_transformer import CharTransformer
from tasks.image_networks import resnet
from tests.support.skips import Functional, SEPARATED, SKIPS, Squeeze, UNet
from tests.support.wrapped import ALL_WAYS, gradients, residual, WAYS

# The cuts of each network. Layers inside of blocks have theirs at the end of the block.
CUTS = {
    # Chains keep their cuts after activations. The last block is followed by a pooling layer,
    # which has no weights, as an activation function.
    "resnet": ["relu", "act", "layer1.0", "layer1.1", "layer2.0", "pool"],
    # Everything goes through the sum of both embeddings, and not through that of places.
    "pre-norm": ["tokens", "drop", "blocks.0", "blocks.1"],
    # The norm at the end of a block is no part of the branch: block and norm return the same.
    "post-norm": ["embedding", "blocks.layers.0", "blocks.layers.1"],
    # Of modules that return the same, the smallest: `1.2`, and not `1`.
    "nested": ["0", "1.0", "1.1", "1.2"],
    "functional": ["0", "1", "2"],
    "activation behind": ["0", "1.1"],
    # All features of a dense block go through its output; the cut goes after the ReLU behind it.
    # The ReLU at the beginning of a branch is no place, though it follows the stem directly.
    "dense": ["0.1", "2.1", "2.3", "3"],
    # The gate is a better place for its layers, and the block is better still.
    "gated": ["0", "1"],
    "mixed": ["2", "4", "5.0", "5.1", "6.1"],
    "repeated": ["stem", "block"],
    "checkpoints": ["stem", "blocks.0", "blocks.1"],
    "recurrent": ["0", "1", "2"],
    # Nothing separates inner places, and no module around them does.
    "u-net": ["down1.1", "down2.1", "low.1", "up2.1", "up1.1"],
    # The output of the encoder goes around the blocks of the decoder, and their own connections do
    # not: the decoder as a whole is no block.
    "encoder and decoder": [
        *("embedding", "body.encoder.layers.0", "body.encoder.layers.1"),
        *(f"body.decoder.layers.{i}" for i in range(4)),
    ],
    "conditioned": ["stem", "condition", "blocks.0", "blocks.1"],
    "two outputs": ["stem", "first", "auxiliary", "second"],
    # The activation module runs after both branches, so that no cut behind it is that of one.
    "shared activation": ["stem", "a", "b"],
    # The graph does not show what is inside.
    "reentrant checkpoints": [
        "stem",
        *(f"blocks.{i}.inner.{place}" for i in range(2) for place in ("1", "2.act", "2.b", "3")),
    ],
    # No gradient goes along the first connection; around the layers of the gate one does.
    "frozen stem": ["0", "1.inner.1", "1.inner.2", "1.inner.3", "2"],
}


def wrapped(name, **options):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network, x = SKIPS[name].build(), SKIPS[name].input()
        return DNI(network, example_input=x, **{"unlock": "update", "recurrent": False, **options})


@pytest.mark.parametrize("name", SKIPS)
@pytest.mark.parametrize("example", [False, True])
def test_cuts_move_to_where_fewer_connections_lead_around_them(name, example):
    torch.manual_seed(0)
    network, x = SKIPS[name].build(), SKIPS[name].input()
    given = {"example_input": x} if example else {}
    net = DNI(network, unlock="update", recurrent=False, **given)
    SKIPS[name].loss(net(x)).backward()
    assert [*net._rooms.cuts._places.sites] == CUTS[name]


class Stop(torch.autograd.Function):
    """Passes a tensor on, and stops its gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


def goes_around(network, example, cut):
    """Return the parameters before a cut that get a gradient though it is stopped at the cut."""
    before, ended = set(), []

    def note(module, args, output):
        if not ended:
            before.update(name for name, p in named if any(p is own for own in module.parameters()))

    def stop(module, args, output):
        ended.append(cut)
        return tree_map(lambda t: Stop.apply(t) if t.is_floating_point() else t, output)

    named = [*network.named_parameters()]
    handles = [
        module.register_forward_hook(note)
        for module in network.modules()
        if next(module.children(), None) is None
    ]
    handles.append(network.get_submodule(cut).register_forward_hook(stop))
    _, found = gradients(network, example, example.input())
    for handle in handles:
        handle.remove()
    assert before
    assert any(grad.abs().sum() > 0 for name, grad in found.items() if name not in before)
    return {name for name in before if name in found and found[name].abs().sum() > 0}


def test_the_check_of_connections_finds_them():
    torch.manual_seed(0)
    found = goes_around(residual(1), SEPARATED["nested"], "1.0.narrow")
    assert found == {"0.weight", "0.bias"}


@pytest.mark.parametrize("name", SEPARATED)
def test_no_gradient_goes_around_the_cuts(name):
    net = wrapped(name)
    cuts = [*net.interfaces]
    network = net.unwrap()
    # In a module that runs several times, parameters before its last call are after its first.
    for cut in (cut for cut in cuts if name != "repeated" or cut != "block"):
        assert goes_around(network, SEPARATED[name], cut) == set()


@pytest.mark.parametrize("name", SKIPS)
@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_gradients_are_those_of_backpropagation(name, unlock):
    torch.manual_seed(0)
    network, x = SKIPS[name].build(), SKIPS[name].input()
    loss, expected = gradients(copy.deepcopy(network), SKIPS[name], x)
    net = DNI(network, bp_lambda=1.0, recurrent=False, unlock=unlock)
    for _ in range(2):
        found, _ = gradients(net, SKIPS[name], x)
        assert torch.equal(found, loss)
        for key, parameter in network.named_parameters():
            if key in expected:
                assert torch.equal(parameter.grad, expected[key]), key


@pytest.mark.parametrize("name", SEPARATED)
def test_eager_learning_works_on_what_was_chosen(name):
    if name == "repeated":
        with pytest.raises(DNIError, match="'block' comes twice"):
            wrapped(name, eager=True)
        return
    net = wrapped(name, eager=True)
    for _ in range(2):
        SKIPS[name].loss(net(SKIPS[name].input())).backward()
    assert all(stats.updates == 2 for stats in net.stats().values())
    trained = {n for n, p in net.network.named_parameters() if p.grad is not None}
    assert trained == {n for n, _ in net.network.named_parameters()}


@pytest.mark.parametrize("name", ["nested", "resnet", "post-norm"])
def test_blocks_learn_in_the_first_pass(name):
    torch.manual_seed(0)
    net = DNI(SKIPS[name].build(), unlock="update")
    SKIPS[name].loss(net(SKIPS[name].input())).backward()
    assert all(stats.updates == 1 for stats in net.stats().values())


def test_the_tasks_networks_are_cut_at_their_blocks():
    net = DNI(resnet(10), unlock="update", example_input=torch.randn(2, 3, 32, 32))
    blocks = [f"block{i}" for i in range(1, 6)]
    assert [*net.interfaces] == ["stem.2", *blocks, "pool"]
    net = DNI(CharTransformer(7, 5, 24, 3), unlock="update", example_input=torch.arange(5)[None])
    assert [*net.interfaces] == ["embedding", "blocks.0", "blocks.1", "blocks.2"]


def test_torchvisions_resnet_is_cut_at_its_blocks():
    from tasks.torchvision_import import torchvision  # takes a second

    net = DNI(
        torchvision.models.resnet18(), unlock="update", example_input=torch.randn(2, 3, 32, 32)
    )
    blocks = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    assert [*net.interfaces] == ["maxpool", *blocks[:-1], "avgpool"]


def test_a_u_net_inside_of_a_network_is_one_part():
    # As any block, it is a module that everything goes through.
    network = nn.Sequential(nn.Conv2d(2, 2, 1), UNet(), nn.ReLU(), nn.Conv2d(1, 1, 1))
    net = DNI(network, unlock="update", example_input=torch.randn(2, 2, 8, 8))
    assert [*net.interfaces] == ["0", "1.down1.1", "1.up1.1", "2"]


class Skipping(nn.Module):
    """The second of three blocks is skipped at first."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.skips = nn.Linear(6, 8), nn.Linear(8, 2), True
        self.first, self.second, self.third = (Squeeze() for _ in range(3))

    def forward(self, x):
        x = self.first(self.stem(x))
        return self.head(self.third(x if self.skips else self.second(x)))


@pytest.mark.parametrize("way", WAYS)
def test_a_block_that_the_first_pass_skipped_gets_its_cut_at_its_end(way):
    net = DNI(Skipping(), **WAYS[way])

    def train(steps):
        for _ in range(steps):
            net(torch.randn(5, 6)).square().mean().backward()

    train(1)
    assert [*net.interfaces] == ["stem", "first", "third"]
    net.network.skips = False
    train(4)
    assert [*net.interfaces] == ["stem", "first", "third", "second"]
    assert net.stats()["second"].updates


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_resumed_wrapper_has_the_same_cuts(way):
    net, again = (DNI(residual(2), **ALL_WAYS[way]) for _ in range(2))
    net(torch.randn(5, 4)).square().mean().backward()
    again.load_state_dict(copy.deepcopy(net.state_dict()))
    # No layer waits for its first pass, so that none is recorded.
    hooked = {name for name, m in again.network.named_modules() if m._forward_hooks}
    assert hooked - {""} == {"0", "1.0", "1.1"}
    for _ in range(3):
        again(torch.randn(5, 4)).square().mean().backward()
    assert [*again.interfaces] == ["0", "1.0", "1.1"]


def test_layers_that_have_not_run_are_saved():
    net = DNI(Skipping(), unlock="update")
    net(torch.randn(5, 6)).square().mean().backward()
    again = DNI(Skipping(), unlock="update")
    again.load_state_dict(copy.deepcopy(net.state_dict()))
    again.network.skips = False
    for _ in range(2):
        again(torch.randn(5, 6)).square().mean().backward()
    assert [*again.interfaces] == ["stem", "first", "third", "second"]


class Outer(nn.Module):
    """An activation function behind a block, and one at the beginning of the next branch."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(6, 8), Squeeze(), PreActivation()
        self.third, self.head = Functional(), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(self.stem(x))
        return self.head(self.third(self.second(F.gelu(x))))


class PreActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.b(F.relu(self.a(F.relu(x))))


def test_activation_functions_behind_blocks_are_named_and_those_in_branches_are_not():
    network = Outer()
    network.third = PreActivation()
    with pytest.warns(UserWarning, match=r"function at 'first' \(gelu\): no module"):
        net = DNI(network, unlock="update", example_input=torch.randn(5, 6))
    assert [*net.interfaces] == ["stem", "first", "second", "third"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DNI(SKIPS["functional"].build(), unlock="update", example_input=torch.randn(5, 6))


@pytest.mark.parametrize("name", ["resnet", "pre-norm"])
@pytest.mark.parametrize("backward", [False, True])
def test_the_pass_that_places_cuts_keeps_no_activation(name, backward):
    torch.manual_seed(0)
    network, kept = SKIPS[name].build(), []

    def note(module, args, output):
        kept.append(weakref.ref(output[0] if isinstance(output, tuple) else output))

    handles = [m.register_forward_hook(note) for n, m in network.named_modules() if n]
    net = DNI(network, unlock="update")
    gc.disable()
    try:
        loss = SKIPS[name].loss(net(SKIPS[name].input()))
        if backward:
            loss.backward()
        del loss
        assert kept
        assert not any(ref() is not None for ref in kept)
    finally:
        gc.enable()
    for handle in handles:
        handle.remove()
