"""Passes that reach other cuts than the first one, where the error is taken at the last cut."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI


class Optional(nn.Module):
    """Layers that may be left out; the output is too wide for its gradient to be the error."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(4)])
        self.head = nn.Linear(6, 30)

    def forward(self, x, used):
        for i in used:
            x = torch.tanh(self.layers[i](x))
        return self.head(x)


def gradients(network, x, used):
    network.zero_grad()
    network(x, used).square().mean().backward()
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("exact_every", [1, 2])
def test_a_cut_after_the_one_with_the_error_passes_true_gradients(exact_every):
    torch.manual_seed(0)
    network, x = Optional(), torch.randn(5, 6)
    bare = copy.deepcopy(network)
    net = DNI(network, layers="layers.*", exact_every=exact_every)
    gradients(net, x, [0, 1, 2])  # The error is taken at layer 2.
    for step in range(1, 5):
        expected = gradients(bare, x, [0, 1, 2, 3])
        found = gradients(net, x, [0, 1, 2, 3])
        assert net._rooms.learner.steps == step + 1
        for name in ("head.weight", "layers.3.weight", "layers.2.weight"):
            assert torch.equal(found[f"network.{name}"], expected[name])
        exact = step % exact_every == 0 and exact_every > 1
        for name in ("layers.0.weight", "layers.1.weight"):
            assert torch.equal(found[f"network.{name}"], expected[name]) == exact
            # Predictions start at zero, and the first cut learns from that of the second one.
            assert found[f"network.{name}"].any() or step < 3
    assert net.stats()["layers.3"].updates == 0


@pytest.mark.parametrize("exact_every", [1, 2])
def test_a_pass_without_the_error_is_a_step(exact_every):
    torch.manual_seed(0)
    network, x = Optional(), torch.randn(5, 6)
    bare = copy.deepcopy(network)
    net = DNI(network, layers="layers.*", exact_every=exact_every)
    gradients(net, x, [0, 1, 2])
    for step in range(1, 5):
        expected = gradients(bare, x, [0, 1])
        found = gradients(net, x, [0, 1])
        assert net._rooms.learner.steps == step + 1
        assert torch.equal(found["network.head.weight"], expected["head.weight"])
        if exact_every == 1 or step % exact_every == 0:
            # The error is not known, so nothing is predicted.
            name = "layers.0.weight"
            assert torch.equal(found[f"network.{name}"], expected[name])
        else:
            assert [*found] == ["network.head.weight", "network.head.bias"]
