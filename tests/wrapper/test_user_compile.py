"""``torch.compile`` by the user, of the wrapper or of the network in it, changes no result."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI

OPTIONS = {
    "default": {},
    "update": {"unlock": "update"},
    "exact": {"exact_every": 2},
    "eager": {"eager": True},
}
PREFIX = "_orig_mod."


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)
    )


def compiled_wrapper(options):
    return torch.compile(DNI(network(), layers=["1", "3"], **options), backend="aot_eager")


def compiled_network(options):
    inner = network()
    inner.compile(backend="aot_eager")  # the cuts are inside, and keep their names
    return DNI(inner, layers=["1", "3"], **options)


def train(net):
    torch.manual_seed(1)
    x, y = torch.randn(8, 12), torch.randint(0, 4, (8,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return {name.replace(PREFIX, ""): p for name, p in net.named_parameters()}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("build", [compiled_wrapper, compiled_network])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_equals_that_without_compilation(build, options):
    expected = train(DNI(network(), layers=["1", "3"], **options))
    found = train(build(options))
    assert found.keys() == expected.keys()
    for name, parameter in found.items():
        torch.testing.assert_close(parameter, expected[name])
        assert parameter.grad.any()
