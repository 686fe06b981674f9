"""Windows equal a reference written from the paper's equations."""

import torch
from torch.nn import functional as F

from tests.support.recurrent_zoo import data
from tests.support.temporal_windows import network_and_reference


def assert_matches(network, net, reference, grads):
    for weight, grad in zip((network.core.u, network.core.w, network.v), grads, strict=True):
        torch.testing.assert_close(weight.weight.grad, grad.t(), rtol=1e-9, atol=1e-13)
    if reference.windows > 1:
        last = net.interfaces["core.state"].synthesizer.layers.last
        torch.testing.assert_close(last.weight.detach(), reference.future.a.t())
        torch.testing.assert_close(last.bias.detach(), reference.future.b)


def test_bootstrap_scale_bound_and_probes_follow_the_paper():
    network, net, reference = network_and_reference()
    all_samples, no_sample = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)
    state = torch.randn(5, 4, dtype=torch.float64)
    windows = 0
    for x, y in data(20):
        expected_state, grads = reference.window(
            state.detach(), x, y, all_samples, all_samples, no_sample
        )
        net.zero_grad()
        out, state = net(x, state)
        sum(F.mse_loss(o, t) for o, t in zip(out, y, strict=True)).backward()
        torch.testing.assert_close(state.detach(), expected_state)
        assert_matches(network, net, reference, grads)
        windows += reference.future.a.abs().sum() > 0
    assert windows > 10


def test_ends_of_sequences_follow_the_reference():
    """Sequences end by a flag, by another state, or in padding, each sample on its own."""
    network, net, reference = network_and_reference()
    state = torch.randn(5, 4, dtype=torch.float64)
    flagged = torch.zeros(5, dtype=torch.bool)
    finished = torch.zeros(5, dtype=torch.bool)
    continued = torch.ones(5, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    for i, (x, y) in enumerate(data(30)):
        valid_mask = ~finished
        if i:
            # Some sequences end and new ones begin. A few of them were not flagged.
            fresh = torch.rand(5, generator=generator) < 0.3
            state = torch.where(fresh[:, None], torch.zeros_like(state), state)
            continued = ~fresh & ~flagged & ~finished
            finished = ~fresh & (flagged | finished)
        flagged = torch.rand(5, generator=generator) < 0.2
        _, grads = reference.window(state.detach(), x, y, continued, valid_mask, flagged | finished)
        net.zero_grad()
        out, state = net(x, state)
        net.end_of_sequence(flagged)
        sum(F.mse_loss(o, t) for o, t in zip(out, y, strict=True)).backward()
        assert_matches(network, net, reference, grads)
