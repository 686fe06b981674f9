"""Hooks of the full unlock and of sparse updates."""

import pytest
import torch

from pytorch_dni import DNI, DNIError
from tests.support.hooks import forward_hooks
from tests.support.zoo import relu_mlp

OPTIONS = [
    {"unlock": "full"},
    {"unlock": "update", "update_probability": 0.5},
    {"unlock": "backward", "update_probability": 0.5},
    {"unlock": "backward", "exact_every": 2},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_only_full_unlock_refuses_modules_called_without_the_network(options):
    network = relu_mlp()
    net = DNI(network, example_input=torch.randn(2, 6), **options)
    if options["unlock"] == "full":
        with pytest.raises(DNIError, match="call the network itself"):
            network[:4](torch.randn(2, 6))
    else:
        network[:4](torch.randn(2, 6)).sum().backward()
        assert net.interfaces


@pytest.mark.parametrize("options", OPTIONS)
def test_eval_and_unwrap_remove_all_hooks(options):
    network = relu_mlp()
    net = DNI(network, **options)
    net(torch.randn(3, 6)).sum().backward()
    assert forward_hooks(network)
    net.eval()
    assert not forward_hooks(network)
    net.train()
    net.unwrap()
    assert not forward_hooks(network)
    assert net._rooms.cuts._inputs._input is None
