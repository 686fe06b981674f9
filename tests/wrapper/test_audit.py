"""The audit of a step: exact cosines, and parameters that learn by a way around the cuts."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, DNIError, synthesizer_context
from tests.support.wrapped import synthesizer_parameters, WAYS
from tests.support.zoo import ZOO


def chain():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def trained(network, steps=8, **options):
    """Return a wrapper after some steps, and a closure of one more step."""
    net = DNI(network, **options)
    x, y = torch.randn(16, 6).double(), torch.randint(3, (16,))
    for _ in range(steps):
        F.cross_entropy(net(x), y).backward()
    return net, lambda model: F.cross_entropy(model(x), y)


def reference(net, closure):
    """Return the wrapper's and backpropagation's gradients, written out."""
    bare = copy.deepcopy(net).unwrap()
    exact = torch.autograd.grad(closure(bare), [*bare.parameters()])
    own = copy.deepcopy(net)
    own.network.zero_grad()
    closure(own).backward()
    return [p.grad for p in own.network.parameters()], exact


@pytest.mark.parametrize("way", [*WAYS, "eager"])
def test_cosines_and_norm_ratios_equal_their_definitions(way):
    # The next step after nine is not exact.
    net, closure = trained(chain(), steps=9, **WAYS.get(way, {"eager": True}))
    audit = net.audit(closure)
    assert [part.cut for part in audit.parts] == ["1", "3", ""]
    assert [part.parameters for part in audit.parts] == [
        ["0.weight", "0.bias"],
        ["2.weight", "2.bias"],
        ["4.weight", "4.bias"],
    ]
    found, exact = reference(net, closure)
    for i, part in enumerate(audit.parts):
        a, b = (torch.cat([g.flatten() for g in gs[2 * i : 2 * i + 2]]) for gs in (found, exact))
        assert part.cosine == pytest.approx(F.cosine_similarity(a, b, dim=0).item(), rel=1e-9)
        assert part.norm_ratio == pytest.approx((a.norm() / b.norm()).item(), rel=1e-9)
    assert audit.parts[-1].cosine == pytest.approx(1, rel=1e-9)
    assert audit.parts[0].cosine < 0.999
    for name, a, b in zip(audit.cosines, found, exact, strict=True):
        expected = F.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()
        assert audit.cosines[name] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_at_lambda_one_all_gradients_are_exact(unlock):
    net, closure = trained(chain(), bp_lambda=1.0, unlock=unlock)
    for part in net.audit(closure).parts:
        assert part.cosine == pytest.approx(1, rel=1e-9)
        assert part.norm_ratio == pytest.approx(1, rel=1e-9)


class Skip(nn.Module):
    """The first layer also reaches the output directly."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        x = torch.tanh(self.first(x))
        return self.last(x + torch.tanh(self.second(x)))


@pytest.mark.parametrize("way", WAYS)
def test_parameters_that_learn_around_the_cuts_are_named(way):
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    for layers, expected in ((["second"], ["first.weight", "first.bias"]), (["first"], [])):
        net = DNI(Skip(), layers=layers, example_input=x, **WAYS[way])
        audit = net.audit(lambda model: model(x).square().mean())
        assert [name for part in audit.parts for name in part.bypassing] == expected


@pytest.mark.parametrize("way", WAYS)
def test_nothing_changes(way):
    net, closure = trained(nn.Sequential(chain(), nn.Dropout(0.3)), **WAYS[way])
    state = torch.get_rng_state()
    before = [p.clone() for p in (*net.parameters(), *synthesizer_parameters(net))]
    grads, stats = [p.grad.clone() for p in net.parameters()], net.stats()
    net.audit(closure)
    assert torch.equal(torch.get_rng_state(), state)
    after = [*net.parameters(), *synthesizer_parameters(net)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, net.parameters(), strict=True))
    assert net.stats() == stats


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ZOO)
def test_every_architecture(name, way):
    torch.manual_seed(0)
    example = ZOO[name]
    net, x = DNI(example.build(), recurrent=False, **WAYS[way]), example.input()
    for _ in range(3):
        example.loss(net(x)).backward()
    audit = net.audit(lambda model: example.loss(model(x)))
    trainable = {n for n, p in net.network.named_parameters() if p.grad is not None}
    assert {n for part in audit.parts for n in part.parameters} == trainable
    assert all(math.isnan(p.cosine) or -1.001 <= p.cosine <= 1.001 for p in audit.parts)
    table = str(audit).splitlines()
    assert len(table) == len(audit.parts) + 2
    assert len({len(line) for line in table}) == 1


def test_contexts_are_given_by_the_closure():
    x, y = torch.randn(16, 6).double(), torch.randint(3, (16,))
    net = DNI(chain(), context_size=3, example_input=x)

    def closure(model):
        with synthesizer_context(y):
            return F.cross_entropy(model(x), y)

    assert len(net.audit(closure).parts) == 3


def test_misuse_is_one_clear_error():
    net, closure = trained(chain(), steps=0)
    with pytest.raises(DNIError, match="parts are known"):
        net.audit(closure)
    net, closure = trained(chain())
    with pytest.raises(DNIError, match="returns the loss"):
        net.audit(lambda model: None)
    net.eval()
    with pytest.raises(DNIError, match="in training"):
        net.audit(closure)
