"""Checkpoints with ``use_reentrant=True`` run backward passes inside of a backward pass."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytorch_dni import DNI
from tests.support.wrapped import assert_equal, synthesizer_parameters

WAYS = {
    "backward": {},
    "update": {"unlock": "update"},
    "warm-up": {"bp_lambda": lambda step: float(step == 1)},
    "sgd": {"grad_optim": "sgd", "grad_lr": 0.1},
}


class Checkpointed(nn.Module):
    """Blocks with cuts inside, each under a checkpoint; ``nested`` puts them under another one."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()) for _ in range(3)
        )

    def forward(self, x):
        x = self.stem(x)
        nested = self.kind == "nested"
        x = checkpoint(self.run, x, use_reentrant=True) if nested else self.run(x)
        return self.head(x), x.mean(1)  # the error is taken at the last cut, inside of a block

    def run(self, x):
        for block in self.blocks:
            x = block(x) if self.kind == "none" else checkpoint(block, x, use_reentrant=True)
        return x


def loss(net, step):
    scores, mean = net(torch.randn(5, 6, generator=torch.Generator().manual_seed(step)))
    return scores.square().mean() + mean.square().mean()


def wrapped(kind, options):
    torch.manual_seed(0)
    network = Checkpointed(kind)
    # The order of the cuts, and so that of the synthesizers, would be that of the backward pass.
    layers = ["stem", *(f"blocks.{block}.{layer}" for block in range(3) for layer in (1, 3))]
    return DNI(network, layers=layers, example_input=torch.randn(5, 6), **options)


def trained(kind, options):
    net = wrapped(kind, options)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(4):
        optimizer.zero_grad()
        loss(net, step).backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("kind", ["each", "nested"])
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_they_are_part_of_the_step(kind, options):
    """One step of the synthesizers, in which all cuts know the error."""
    plain, nested = trained("none", options), trained(kind, options)
    assert nested._rooms.learner.steps == 4
    assert {stats.updates for stats in nested.stats().values()} == {4}
    assert_equal([*plain.parameters()], [*nested.parameters()])
    assert_equal(synthesizer_parameters(plain), synthesizer_parameters(nested))


@pytest.mark.parametrize("block", [0, 2])
def test_one_that_fails_leaves_no_trace(block):
    nets = [wrapped("each", {}), wrapped("each", {})]
    for net in nets:
        loss(net, 0).backward()

    def stop(grad):
        raise RuntimeError("stop")

    def stop_backward(module, args, output):
        if output.requires_grad:
            output.register_hook(stop)

    handle = nets[1].network.blocks[block][0].register_forward_hook(stop_backward)
    with pytest.raises(RuntimeError, match="stop"):
        loss(nets[1], 9).backward()
    handle.remove()
    for net in nets:
        net.zero_grad()
        loss(net, 1).backward()
    assert [net._rooms.learner.steps for net in nets] == [2, 2]
    for ours, theirs in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert_equal(*(synthesizer_parameters(net) for net in nets))
