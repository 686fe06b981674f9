"""Transforms of ``torch.func``, forward-mode differentiation, and double backward passes."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from pytorch_dni import DNI, DNIError

OPTIONS = {
    "default": {},
    "update": {"unlock": "update"},
    "exact": {"exact_every": 2},
    "eager": {"eager": True},
}
ALL = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)
    )


def wrapped(options):
    net = DNI(network(), layers=["1", "3"], **options)
    net(torch.randn(8, 12)).square().mean().backward()
    net.zero_grad()
    return net


def of_parameters(net, x):
    own = {name: p.detach() for name, p in net.named_parameters()}
    return grad(lambda given: functional_call(net, given, (x,)).square().mean())(own)


TRANSFORMS = {
    "vmap": lambda net, x: vmap(net)(x),
    "grad": of_parameters,
    "jvp": lambda net, x: jvp(net, (x,), (x,)),
}


@ALL
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_transform_in_training_is_an_error_and_works_in_evaluation(transform, options):
    net, x = wrapped(options), torch.randn(8, 12)
    before = copy.deepcopy(net.stats())
    with pytest.raises(DNIError, match=r"a transform of torch.func .*functional_call is fine"):
        transform(net, x)
    assert net.stats() == before
    net.eval()
    found, expected = transform(net, x), transform(net.network, x)
    for ours, theirs in zip(leaves(found), leaves(expected), strict=True):
        torch.testing.assert_close(ours, theirs)


def leaves(tree):
    if isinstance(tree, torch.Tensor):
        return [tree]
    return [
        leaf
        for child in (tree.values() if isinstance(tree, dict) else tree)
        for leaf in leaves(child)
    ]


@ALL
def test_a_functional_call_trains(options):
    net, x = wrapped(options), torch.randn(8, 12)
    for _ in range(3):
        own = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
        functional_call(net, own, (x,)).square().mean().backward()
        assert all(p.grad is not None for p in own.values())
    assert all(p.grad is None for p in net.parameters())


@ALL
def test_tangents_pass_the_cuts_or_are_an_error(options):
    net, x = wrapped(options), torch.randn(8, 12)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        if "eager" in options or "exact_every" in options:
            with pytest.raises(DNIError, match="forward-mode differentiation"):
                net(dual)
            net.eval()
        tangent = forward_ad.unpack_dual(net(dual)).tangent
        expected = forward_ad.unpack_dual(network()(dual)).tangent
    torch.testing.assert_close(tangent, expected)


def penalty(net, x):
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    found.square().sum().backward()


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_a_double_backward_pass_at_lambda_one_is_that_of_the_network(unlock):
    net, x = wrapped({"unlock": unlock, "bp_lambda": 1.0}), torch.randn(8, 12)
    bare = network()
    for module in (net, bare):
        penalty(module, x)
    for ours, theirs in zip(net.parameters(), bare.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    "options",
    [*OPTIONS.values(), {"unlock": "full"}],
    ids=str,
)
def test_a_double_backward_pass_through_synthetic_gradients_is_an_error(options):
    net, x = wrapped(options), torch.randn(8, 12)
    with pytest.raises(DNIError, match="cannot be differentiated again"):
        penalty(net, x)
