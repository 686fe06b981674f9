"""``grad_steps``: several optimizer steps on one lesson."""

import pytest
import torch
from torch import nn

from pytorch_dni import BasicSynthesizer, DNI, LocalLoss_DNI, SynthesizerError
from tests.support.zoo import relu_mlp

# The place of a last layer's bias, or of the one matrix, among a synthesizer's parameters.
LAST = {"backward": 0, "update": 2}


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_synthesizers_take_more_steps_when_updates_are_sparse(unlock):
    def after(**options):
        torch.manual_seed(0)
        given = {"grad_optim": "sgd", "grad_lr": 0.1, "unlock": unlock, **options}
        net = DNI(relu_mlp(1), example_input=torch.zeros(4, 6), **given)
        torch.manual_seed(1)
        net(torch.randn(4, 6)).square().sum().backward()
        assert net.stats()["1"].updates == net.interfaces["1"].scale.count == 1
        return [*net.interfaces["1"].synthesizer.parameters()][LAST[unlock]].detach()

    one, two, three = (after(grad_steps=n) for n in (1, 2, 3))
    assert torch.equal(after(), one)
    assert one.norm() < two.norm() < three.norm()
    for probability, steps in ((1.0, 1), (0.5, 2), (0.1, 10), (0.01, 10)):
        net = DNI(relu_mlp(1), update_probability=probability, unlock=unlock)
        assert net._rooms.learner.repeats == steps
    local = {"dni_network": LocalLoss_DNI, "context_size": 2}
    assert DNI(relu_mlp(1), update_probability=0.1, **local)._rooms.learner.repeats == 1
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(SynthesizerError, match="grad_steps"):
            DNI(relu_mlp(1), grad_steps=wrong)


def test_repeated_steps_use_the_same_lesson():
    """The reference is a loop of gradient steps in float64."""
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
