"""Layers that the library does not know: by vmap over the layer alone, or by the user's rules."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from pytorch_dni import DNIError
from pytorch_dni.individual import (
    individual_gradient_norms,
    individual_gradients,
    LayerRule,
    OuterProducts,
    register_rule,
)
from tests.support.individual import check_layer


class Scale(nn.Module):
    """Scales features."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(4))

    def forward(self, x, shift=None):
        return x * self.factor if shift is None else x * self.factor + shift


class Block(nn.Module):
    """Has parameters of its own besides those of its layers, and returns a dict."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 4), Scale()
        self.token, self.temperature = nn.Parameter(torch.randn(4)), nn.Parameter(torch.ones(()))

    def forward(self, x):
        hidden = self.layer(x + self.token).relu_()
        return {"hidden": hidden, "scaled": self.scale(hidden) * self.temperature, "x": x}


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.last = Block(), nn.Linear(4, 2)

    def forward(self, x):
        found = self.block(x)
        return self.last(found["hidden"] + found["scaled"] * found["x"])


@pytest.mark.filterwarnings("ignore:per-example gradients of")
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_parameters_of_modules_of_the_user(reduction):
    check_layer(Whole(), [torch.randn(3, 4)], reduction)


@pytest.mark.filterwarnings("ignore:per-example gradients of")
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.PReLU(3), (3, 5)),
        (nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 4, 4)),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True, batch_first=True), (3, 4)),
        (nn.MultiheadAttention(4, 2, add_zero_attn=True, batch_first=True), (3, 4)),
        (parametrizations.weight_norm(nn.Linear(4, 3)), (4,)),
        (parametrizations.orthogonal(nn.Linear(4, 3)), (4,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_layers_by_vmap(layer, shape):
    network = nn.Sequential(layer).double()
    if isinstance(layer, nn.MultiheadAttention):
        network.forward = lambda x: layer(x, x, x)
    check_layer(network, [torch.randn(3, *shape)])


def test_vmap_is_told():
    with pytest.warns(UserWarning, match=r"'1' \(Scale\) are computed by torch.func.vmap"):
        individual_gradients(nn.Sequential(nn.Linear(4, 4), Scale())).__enter__()


class Swapped(Scale):
    """Returns a view whose memory is in another order."""

    def forward(self, x):
        return (x * self.factor).mT


@pytest.mark.filterwarnings("ignore:per-example gradients of")
def test_views_that_are_changed_in_place():
    network = nn.Sequential(nn.Linear(4, 4), Swapped(), nn.LeakyReLU(0.1, True), nn.Linear(3, 2))
    check_layer(network, [torch.randn(2, 3, 4)])


class Mixing(Scale):
    def forward(self, x):
        return x * self.factor + x.mean(0)


class Dropping(Scale):
    def forward(self, x):
        return nn.functional.dropout(x * self.factor)


@pytest.mark.filterwarnings("ignore:per-example gradients of")
@pytest.mark.parametrize("kind", [Mixing, Dropping])
def test_layers_that_cannot_run_on_one_example_are_an_error(kind):
    network = nn.Sequential(nn.Linear(4, 4), kind())
    with (
        individual_gradients(network),
        pytest.raises(DNIError, match=rf"'1' \({kind.__name__}\) cannot be run on each example"),
    ):
        network(torch.randn(3, 4)).sum().backward()


def test_a_rule_of_the_user():
    network = nn.Sequential(nn.Linear(4, 4), Scale(), nn.Linear(4, 2))
    calls = []

    def rule(call):
        calls.append((call.name, call.wanted, call.input.shape))
        return {"factor": call.input * call.output_grad}

    with register_rule(Scale, rule) as handle:
        check_layer(network, [torch.randn(3, 4)])
        assert calls[0] == ("1", frozenset({"factor"}), (3, 4))
        with pytest.raises(DNIError, match="Scale has a registered rule"):
            register_rule(Scale, rule)
    handle.remove()
    with pytest.warns(UserWarning, match="vmap"):
        individual_gradients(network).__enter__()


def test_a_rule_of_the_user_takes_the_place_of_one_of_the_library():
    class Own(nn.Linear):
        """Its inputs are doubled."""

        def forward(self, x):
            return super().forward(2 * x)

    class Rule(LayerRule):
        def gradients(self, call):
            left, right = call.output_grad[:, None, :, None], 2 * call.input[:, None, None]
            return {
                "weight": OuterProducts(left, right, call.module.weight.shape),
                "bias": call.output_grad,
            }

    network = nn.Sequential(Own(4, 3), nn.Linear(3, 2))
    with pytest.warns(UserWarning, match="Own"):  # its forward is not that of Linear
        check_layer(network, [torch.randn(3, 4)])
    with register_rule(Own, Rule()):
        check_layer(network, [torch.randn(3, 4)])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda call: {}, "must return a mapping with the gradients of factor"),
        (lambda call: call.input, "must return a mapping"),
        (lambda call: {"factor": call.input.sum(0)}, "gave gradients of shape"),
        (lambda call: {"factor": torch.zeros(2, 4)}, r"must be of shape \(3, 4\)"),
    ],
)
def test_a_rule_that_returns_something_else_is_an_error(rule, message):
    network = nn.Sequential(nn.Linear(4, 4), Scale())
    with (
        register_rule(Scale, rule),
        individual_gradient_norms(network),
        pytest.raises(DNIError, match=message),
    ):
        network(torch.randn(3, 4)).sum().backward()


@pytest.mark.parametrize("arguments", [(Scale(), print), (int, print), (Scale, 3)])
def test_wrong_arguments_of_register_rule_are_an_error(arguments):
    with pytest.raises(DNIError):
        register_rule(*arguments)
