"""Critics: the loss to come, predicted from a state; its gradient is what is sent back."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    Critic_DNI,
    CriticInterface,
    DNI,
    DNIError,
    Future,
    Linear_DNI,
    synthesizer_context,
    SynthesizerError,
)
from pytorch_dni.recurrent._returns import Returns
from tests.support.recurrent_zoo import data, detached, NETWORKS, Sequence

OPTIONS = {"dni_network": Critic_DNI, "dni_params": {"horizon": 3, "discount": 0.5}}


def test_returns_are_discounted_sums_sample_by_sample():
    """Against the sum written out: of the windows after a state, until its sequence ends."""
    torch.manual_seed(0)
    horizon, discount, windows, batch = 3, 0.5, 12, 6
    returns = Returns(Critic_DNI(2, 4, 2, horizon=horizon, discount=discount), torch.zeros(()))
    handed = torch.rand(windows, batch) < 0.7
    losses = torch.rand(windows, batch)
    counts = torch.rand(windows, batch) < 0.8
    for k in range(windows):
        returns.hand_on(torch.full((batch, 2), float(k)), None, handed[k], counts[k])
        returns.observe(losses[k])
    # The state that window k was given; the losses of windows k, k + 1, ... as long as each state
    # in between was handed on.
    assert [entry.state[0, 0].item() for entry in returns._due] == [*range(windows - horizon + 1)]
    for k, entry in enumerate(returns._due):
        for b in range(batch):
            expected, alive = 0.0, True
            for i in range(horizon):
                alive = alive and bool(handed[k + i, b])
                expected += alive * discount**i * losses[k + i, b].item()
            assert entry.sum[b].item() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(entry.counts, counts[k])


def test_a_critic_is_regressed_to_returns_in_their_own_units():
    torch.manual_seed(0)
    critic = Critic_DNI(2, 5, 2, horizon=1, num_layers=0).double()
    interface = CriticInterface(critic, optim="sgd", lr=0.1)
    w, b, square, steps = torch.zeros(2).double(), torch.zeros(()).double(), 0.0, 0
    for _ in range(6):
        state, losses = torch.randn(7, 2).double(), torch.rand(7).double() * 50
        handed, counts = torch.rand(7) < 0.8, torch.rand(7) < 0.8
        interface.hand_on(state, None, handed, counts)
        interface.observe(losses)
        interface.learn_returns()
        target = (losses * handed)[counts]
        square, steps = 0.99 * square + 0.01 * target.square().mean(), steps + 1
        unit = (square / (1 - 0.99**steps)).sqrt()
        error = 2 * (state[counts] @ w + b - target / unit) / counts.sum()
        w, b = w - 0.1 * state[counts].t() @ error, b - 0.1 * error.sum()
        torch.testing.assert_close(critic.layers.last.weight[0].detach(), w)
        torch.testing.assert_close(critic.layers.last.bias[0].detach(), b)
        sent = interface.predict(state).message
        torch.testing.assert_close(sent, (unit * w).expand(7, 2))


def test_what_is_sent_back_is_the_gradient_of_the_prediction():
    torch.manual_seed(0)
    critic = Critic_DNI(4, 8, 4, num_layers=2).double()
    nn.init.normal_(critic.layers.last.weight)
    interface = CriticInterface(critic, future=Future(factor=0.5, bound=None, guard=False))
    interface.returns.scale._take(9.0)
    interface.scale._take(1.0)
    state = torch.randn(5, 4).double()

    def value(x):
        return critic(x, None)[0].sum()

    torch.autograd.gradcheck(value, state.clone().requires_grad_())
    expected = torch.autograd.functional.jacobian(value, state) * 3 * 0.5
    torch.testing.assert_close(interface.send_back(state, None), expected)
    assert all(p.grad is None for p in critic.parameters())


def test_it_learns_where_the_loss_to_come_depends_on_the_state():
    torch.manual_seed(0)
    interface = CriticInterface(Critic_DNI(3, 16, 3, horizon=1), lr=1e-2)
    for _ in range(800):
        state = torch.randn(32, 3)
        everybody = torch.ones(32, dtype=torch.bool)
        interface.hand_on(state, None, everybody, everybody)
        interface.observe((state - 1).square().sum(1) / 32)
        interface.learn_returns()
    state = torch.randn(200, 3)
    cosine = F.cosine_similarity(interface.predict(state).message, state - 1, dim=1)
    assert cosine.mean() > 0.95


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("context", [None, 3])
def test_in_the_wrapper(name, context):
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
    assert 0 < critic.returns.scale.value < 1
    assert critic.stats().updates > 20


def test_resuming_is_as_if_never_stopped():
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
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    resumed = DNI(copy.deepcopy(network), context_size=3, **OPTIONS)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(net)
    ends = [train(one, pairs[9:], state) for one in (net, resumed, copied)]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_a_forward_pass_that_broke_off_has_changed_nothing():
    torch.manual_seed(0)
    network, sums = Sequence(nn.GRU), []
    for breaks in (False, True):
        torch.manual_seed(1)
        net, state = DNI(copy.deepcopy(network), **OPTIONS), None
        for i, (x, y) in enumerate(data(7)):
            if breaks and state is not None:
                with pytest.raises(RuntimeError, match="size"):
                    net(x.float()[..., :2], state)
                if i % 2:  # also one that hands nothing on
                    with pytest.raises(RuntimeError, match="size"):
                        net(x.float()[..., :2])
            out, state = net(x.float(), state)
            losses = F.mse_loss(out, y.float(), reduction="none").mean((0, 2)) / 5
            net.observe(losses)
            losses.sum().backward()
        (critic,) = net.interfaces.values()
        sums.append((critic.returns.scale.value, *[entry.sum for entry in critic.returns._entries]))
    assert len(sums[0]) > 1
    assert sums[0][0] == sums[1][0]
    for a, b in zip(*(one[1:] for one in sums), strict=True):
        assert torch.equal(a, b)


def test_a_batch_of_another_size_ends_what_was_under_way():
    returns = Returns(Critic_DNI(2, 4, 2, horizon=2, discount=1.0), torch.zeros(()))
    everybody = torch.ones(3, dtype=torch.bool)
    returns.hand_on(torch.zeros(3, 2), None, everybody, everybody)
    returns.observe(torch.ones(3))
    returns.hand_on(torch.zeros(2, 2), None, everybody[:2], everybody[:2])
    returns.observe(torch.ones(2))
    assert returns._due[0].sum.tolist() == [1, 1, 1]


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
