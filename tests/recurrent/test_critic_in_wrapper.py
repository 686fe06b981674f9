"""Critics in the wrapper: learning, checkpoints, failed forward passes, errors."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    Critic_DNI,
    CriticInterface,
    DNI,
    DNIError,
    Linear_DNI,
    synthesizer_context,
    SynthesizerError,
)
from tests.support.checkpoints import through_file
from tests.support.recurrent_zoo import data, detached, NETWORKS, Sequence

OPTIONS = {"dni_network": Critic_DNI, "dni_params": {"horizon": 3, "discount": 0.5}}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("context", [None, 3])
def test_critics_learn_on_every_network(name, context):
    build, recurrent = NETWORKS[name]
    network = build()
    net = DNI(network, recurrent=recurrent, context_size=context, **OPTIONS)
    critic, state = None, None
    for i, (x, y) in enumerate(data(30)):
        with synthesizer_context(torch.full((5,), i % 3) if context else None):
            out, state = net(x.float(), state if i % 7 else None)
        losses = F.mse_loss(out, y.float(), reduction="none").mean((0, 2)) / 5
        net.observe(losses)
        net.zero_grad()
        losses.sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
        critic = net.interfaces["core.state"]
    assert isinstance(critic, CriticInterface)
    assert critic.synthesizer.layers.last.weight.any()
    assert 0 < critic.observed.scale.value < 1
    assert critic.stats().updates > 20


def test_resumed_training_equals_uninterrupted_training():
    network = Sequence(nn.GRU)
    net = DNI(copy.deepcopy(network), context_size=3, **OPTIONS)

    def train(net, pairs, state):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for i, (x, y) in enumerate(pairs):
            with synthesizer_context(torch.full((5,), i % 3)):
                out, state = net(x.float(), state)
            losses = F.mse_loss(out, y.float(), reduction="none").mean((0, 2)) / 5
            net.observe(losses)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
        return detached(state)

    pairs = data(20)
    state = train(net, pairs[:9], None)
    saved = through_file(net.state_dict())
    resumed = DNI(copy.deepcopy(network), context_size=3, **OPTIONS)
    resumed.load_state_dict(saved)
    copied = copy.deepcopy(net)
    ends = [train(one, pairs[9:], state) for one in (net, resumed, copied)]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_a_failed_forward_pass_changes_nothing():
    torch.manual_seed(0)
    network, sums = Sequence(nn.GRU), []
    for fails in (False, True):
        torch.manual_seed(1)
        net, state = DNI(copy.deepcopy(network), **OPTIONS), None
        for i, (x, y) in enumerate(data(7)):
            if fails and state is not None:
                with pytest.raises(RuntimeError, match="size"):
                    net(x.float()[..., :2], state)
                if i % 2:  # This pass gets no state.
                    with pytest.raises(RuntimeError, match="size"):
                        net(x.float()[..., :2])
            out, state = net(x.float(), state)
            losses = F.mse_loss(out, y.float(), reduction="none").mean((0, 2)) / 5
            net.observe(losses)
            losses.sum().backward()
        (critic,) = net.interfaces.values()
        sums.append((critic.observed.scale.value, *[entry.sum for entry in critic.observed._open]))
    assert len(sums[0]) > 1
    assert sums[0][0] == sums[1][0]
    for a, b in zip(*(one[1:] for one in sums), strict=True):
        assert torch.equal(a, b)


def test_misuse_is_one_clear_error():
    for wrong in ({"horizon": 0}, {"discount": 1.5}, {"norm": "batch"}):
        with pytest.raises(SynthesizerError, match=next(iter(wrong))):
            Critic_DNI(2, 4, 2, **wrong)
    with pytest.raises(SynthesizerError, match="Critic_DNI"):
        CriticInterface(Linear_DNI(2, 4, 2))
    x = torch.randn(3, 5, 3)
    net = DNI(Sequence(nn.GRU))
    with pytest.raises(DNIError, match="comes after"):
        net.observe(torch.ones(5))
    net(x)
    with pytest.raises(DNIError, match="for critics"):
        net.observe(torch.ones(5))
    net = DNI(Sequence(nn.GRU), **OPTIONS)
    net(x)
    with pytest.raises(DNIError, match="one loss for each sample"):
        net.observe(torch.ones(()))
    spatial = DNI(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), dni_network=Critic_DNI)
    with pytest.raises(SynthesizerError, match="predicts shape"):
        spatial(torch.randn(5, 3)).sum().backward()
