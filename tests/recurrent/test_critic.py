"""Critics predict the loss to come from a state; the gradient of the prediction is sent."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import Critic_DNI, CriticInterface, FutureGradient


def test_returns_are_discounted_sums_for_each_sample():
    """The sums run over the windows after a state, until the sequence of a sample ends."""
    torch.manual_seed(0)
    horizon, discount, windows, batch = 3, 0.5, 12, 6
    interface = CriticInterface(Critic_DNI(2, 4, 2, horizon=horizon, discount=discount))
    continued = torch.rand(windows, batch) < 0.7
    losses = torch.rand(windows, batch)
    valid_mask = torch.rand(windows, batch) < 0.8
    for k in range(windows):
        interface.begin_window(torch.full((batch, 2), float(k)), None, continued[k], valid_mask[k])
        interface.observe(losses[k])
    due = interface.observed._complete
    # Entry k holds the state that window k received, and the losses of windows k, k + 1, ... for as
    # long as each state was passed on.
    assert [entry.state[0, 0].item() for entry in due] == [*range(windows - horizon + 1)]
    for k, entry in enumerate(due):
        for b in range(batch):
            expected, alive = 0.0, True
            for i in range(horizon):
                alive = alive and bool(continued[k + i, b])
                expected += alive * discount**i * losses[k + i, b].item()
            assert entry.sum[b].item() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(entry.valid_mask, valid_mask[k])


def test_a_critic_is_regressed_to_normalized_returns():
    torch.manual_seed(0)
    critic = Critic_DNI(2, 5, 2, horizon=1, num_layers=0).double()
    interface = CriticInterface(critic, optim="sgd", lr=0.1)
    w, b, square, steps = torch.zeros(2).double(), torch.zeros(()).double(), 0.0, 0
    for _ in range(6):
        state, losses = torch.randn(7, 2).double(), torch.rand(7).double() * 50
        continued, valid_mask = torch.rand(7) < 0.8, torch.rand(7) < 0.8
        interface.begin_window(state, None, continued, valid_mask)
        interface.observe(losses)
        interface.learn_observed()
        target = (losses * continued)[valid_mask]
        square, steps = 0.99 * square + 0.01 * target.square().mean(), steps + 1
        scale = (square / (1 - 0.99**steps)).sqrt()
        error = 2 * (state[valid_mask] @ w + b - target / scale) / valid_mask.sum()
        w, b = w - 0.1 * state[valid_mask].t() @ error, b - 0.1 * error.sum()
        torch.testing.assert_close(critic.layers.last.weight[0].detach(), w)
        torch.testing.assert_close(critic.layers.last.bias[0].detach(), b)
        sent = interface.predict(state).message
        torch.testing.assert_close(sent, (scale * w).expand(7, 2))


def test_the_gradient_of_the_predicted_return_is_sent():
    torch.manual_seed(0)
    critic = Critic_DNI(4, 8, 4, num_layers=2).double()
    nn.init.normal_(critic.layers.last.weight)
    interface = CriticInterface(critic, future=FutureGradient(factor=0.5, bound=None, guard=False))
    interface.observed.scale.add(9.0)
    interface.scale.add(1.0)
    state = torch.randn(5, 4).double()

    def value(x):
        return critic(x, None)[0].sum()

    torch.autograd.gradcheck(value, state.clone().requires_grad_())
    expected = torch.autograd.functional.jacobian(value, state) * 3 * 0.5
    torch.testing.assert_close(interface.inject(state, None), expected)
    assert all(p.grad is None for p in critic.parameters())


def test_a_critic_learns_returns_that_depend_on_the_state():
    torch.manual_seed(0)
    interface = CriticInterface(Critic_DNI(3, 16, 3, horizon=1), lr=1e-2)
    for _ in range(800):
        state = torch.randn(32, 3)
        all_samples = torch.ones(32, dtype=torch.bool)
        interface.begin_window(state, None, all_samples, all_samples)
        interface.observe((state - 1).square().sum(1) / 32)
        interface.learn_observed()
    state = torch.randn(200, 3)
    cosine = F.cosine_similarity(interface.predict(state).message, state - 1, dim=1)
    assert cosine.mean() > 0.95


def test_a_batch_of_another_size_ends_open_returns():
    interface = CriticInterface(Critic_DNI(2, 4, 2, horizon=2, discount=1.0))
    all_samples = torch.ones(3, dtype=torch.bool)
    interface.begin_window(torch.zeros(3, 2), None, all_samples, all_samples)
    interface.observe(torch.ones(3))
    interface.begin_window(torch.zeros(2, 2), None, all_samples[:2], all_samples[:2])
    interface.observe(torch.ones(2))
    assert interface.observed._complete[0].sum.tolist() == [1, 1, 1]
