"""Which modules are layers: parametrized, quantised, lazy and scripted ones; the meta device."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from pytorch_dni import DNI, DNIError, SelectionError
from tests.support.wrapped import ALL_WAYS

WIDTH = 8
X, Y = torch.randn(6, WIDTH), torch.randint(0, 3, (6,))


def network():
    torch.manual_seed(0)
    hidden = [m for _ in range(2) for m in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, 3))


def train(net, steps=2):
    for _ in range(steps):
        F.cross_entropy(net(X), Y).backward()
    return list(net.interfaces)


class LowRank(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(WIDTH, 2)), nn.Parameter(torch.zeros(2, WIDTH))

    def forward(self, weight):
        return weight + self.a @ self.b


class LowRankByLayers(nn.Module):
    """A parametrization that holds layers of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 2), nn.Linear(2, WIDTH)

    def forward(self, weight):
        return weight + self.b(self.a(weight))


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("layers", [None, 3, nn.Linear, "**"])
@pytest.mark.parametrize("kind", [LowRank, LowRankByLayers])
def test_parametrizations_are_no_layers(way, layers, kind):
    net = network()
    parametrize.register_parametrization(net[0], "weight", kind())
    wrapped = DNI(net, layers=layers, **ALL_WAYS[way])
    train(wrapped)
    cuts = {part.cut for part in wrapped._rooms.cuts.parts} - {""}
    assert cuts == {"0", "2"} if layers is nn.Linear else {"1", "3"} <= cuts
    assert not any("parametrizations" in cut for cut in cuts)


def test_a_parametrization_that_is_named_is_an_error():
    net = network()
    parametrize.register_parametrization(net[0], "weight", LowRank())
    with pytest.raises(SelectionError, match=r"'0.parametrizations.weight.0' .LowRank.*weight"):
        DNI(net, layers="0.parametrizations.weight.0")


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("kind", [parametrizations.spectral_norm, parametrizations.weight_norm])
@pytest.mark.parametrize("which", [(0, 2), (0,), (0, 2, 4)])
def test_parametrized_layers_are_cut(way, kind, which):
    net = network()
    for i in which:
        kind(net[i])
    wrapped = DNI(net, **ALL_WAYS[way])
    assert train(wrapped) == ["1", "3"]
    counted = [part.parameters for part in wrapped._rooms.cuts.parts]
    assert sum(counted) == sum(p.numel() for p in net.parameters())
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("way", ["backward", "exact every"])
@pytest.mark.parametrize("kind", [parametrizations.spectral_norm, parametrizations.weight_norm])
def test_a_parametrized_weight_is_no_connection_around_a_layer(way, kind):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()
            for i in (0, 2, 4):
                kind(self.body[i])

        def forward(self, x):
            output = self.body(x)
            return output, output.square()

    net = DNI(Pair(), example_input=X, **ALL_WAYS[way])
    place = net._rooms.errors.place
    assert place.cut == "body.3"
    assert not place.residual


def test_an_audit_finds_the_parts_of_parametrized_weights():
    net = network()
    parametrizations.weight_norm(net[0])
    wrapped = DNI(net, example_input=X)
    audit = wrapped.audit(lambda network: F.cross_entropy(network(X), Y))
    names = {"0.bias", *(f"0.parametrizations.weight.original{i}" for i in (0, 1))}
    assert {*audit.parts[0].parameters} == names


def quantised():
    from torch.ao import quantization

    net = network().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        return quantization.prepare_qat(net)


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("layers", [None, 3])
def test_layers_of_quantisation_aware_training_are_cut(way, layers):
    assert train(DNI(quantised(), layers=layers, **ALL_WAYS[way])) == ["1", "3"]


def test_a_container_with_a_parameter_and_layers_inside_is_no_layer():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, WIDTH))
            self.body = network()

        def forward(self, x):
            return self.body(x + self.position)

    wrapped = DNI(nn.Sequential(Tokens(), nn.Tanh(), nn.Linear(3, 3)))
    assert train(wrapped) == ["0.body.1", "0.body.3", "1"]


def lazy():
    return nn.Sequential(
        nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(8), nn.LazyLinear(3)
    )


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("options", [{}, {"example_input": X}, {"layers": 3}])
def test_lazy_layers_are_cut(way, options):
    net = DNI(lazy(), **options, **ALL_WAYS[way])
    assert train(net) == ["2", "3"]
    assert all(stats.updates for stats in net.stats().values())


@pytest.mark.parametrize("options", [{"eager": True}, {"layers": 3}, {}])
def test_random_numbers_that_lazy_parameters_are_drawn_from_do_not_come_again(options):
    drawn = []
    for wraps in (False, True):
        torch.manual_seed(0)
        net = lazy()
        (DNI(net, **options) if wraps else net)(X)
        drawn.append((net[0].weight, torch.rand(4)))
    for bare, wrapped in zip(*drawn, strict=True):
        assert torch.equal(bare, wrapped)


def test_a_trace_leaves_no_statistics_in_lazy_layers():
    net = lazy()
    DNI(net, example_input=X)
    assert net[1].num_batches_tracked == 0
    torch.testing.assert_close(net[1].running_mean, torch.zeros(8))


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("layers", [None, 3])
def test_networks_on_the_meta_device_are_placed_and_learn_later(way, layers):
    with torch.device("meta"):
        net, example = network(), torch.randn(6, WIDTH)
    wrapped = DNI(net, layers=layers, example_input=example, **ALL_WAYS[way])
    wrapped(example).sum().backward()  # a pass without values teaches nothing
    assert wrapped._rooms.cuts.placed
    assert not wrapped.interfaces
    net.to_empty(device="cpu").zero_grad()  # gradients are moved without values, too
    for module in (net[0], net[2], net[4]):
        module.reset_parameters()
    assert train(wrapped, 4) == ["1", "3"]
    assert all(stats.updates and stats.loss == stats.loss for stats in wrapped.stats().values())
    assert all(p.grad.isfinite().all() for p in net.parameters())


def with_script():
    inner = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()))
    return nn.Sequential(*network()[:4], inner, nn.Linear(WIDTH, 3))


@pytest.mark.parametrize("way", ALL_WAYS)
@pytest.mark.parametrize("layers", [None, 3, ["1", "3"], "**"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_stay_whole(way, layers):
    net = DNI(with_script(), layers=layers, **ALL_WAYS[way])
    assert {"1", "3"} >= {*train(net)} - {"0", "2"}
    assert len(net.interfaces) >= 1
    assert all(p.grad is not None for p in net.network.parameters())


@pytest.mark.parametrize("name", ["4", "4.0"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_that_is_named_is_an_error(name):
    with pytest.raises(SelectionError, match="ScriptModule, which"):
        DNI(with_script(), layers=name)
    with pytest.raises(DNIError, match="takes no hooks"):
        DNI(torch.jit.script(network()))
