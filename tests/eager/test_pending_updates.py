"""Eager learning: every forward pass that is backpropagated counts, and no other one."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, synthesizer_context
from tests.support.checkpoints import assert_same_state
from tests.support.recording import record_messages

DECAY = 0.99


def network():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def loss(out):
    return out.square().mean()


def forward_pass(net, context_size):
    """Run the network on random inputs, with random labels as context; return the loss."""
    labels = None if context_size is None else torch.randint(context_size, (5,))
    with synthesizer_context(labels):
        return loss(net(torch.randn(5, 6).double()))


@pytest.mark.parametrize("context_size", [None, 3])
@pytest.mark.parametrize("at_once", [2, 3])
def test_forward_passes_at_once_all_count(at_once, context_size):
    net = DNI(network(), eager=True, context_size=context_size)
    forward_pass(net, context_size).backward()
    for _ in range(10):
        losses = [forward_pass(net, context_size) for _ in range(at_once)]
        for value in losses:
            value.backward()
    assert {stats.updates for stats in net.stats().values()} == {1 + 10 * at_once}
    for interface in net.interfaces.values():
        assert interface.scale.count == 1 + 10 * at_once
        if context_size is not None:  # of the errors of local heads
            assert interface.error_input.scale.count == 1 + 10 * at_once


def test_the_running_scale_counts_every_message_of_passes_at_once():
    """The reference is the bias-corrected running mean of the messages' mean squares."""
    net = DNI(network(), eager=True, example_input=torch.randn(2, 6).double())
    messages = {name: record_messages(i) for name, i in net.interfaces.items()}
    for _ in range(6):
        first, second = (loss(net(torch.randn(5, 6).double())) for _ in range(2))
        second.backward()
        first.backward()
    for name, interface in net.interfaces.items():
        assert len(messages[name]) == 12
        # Each pass learns at the cuts in the order of the forward pass, but the second pass is
        # backpropagated first: its updates are applied first, except for the last cut, which
        # learns in the backward pass itself.
        pairs = [messages[name][i : i + 2] for i in range(0, 12, 2)]
        last = name == list(net.interfaces)[-1]
        applied = [m for pair in pairs for m in (pair if last else reversed(pair))]
        running = 0.0
        for message in applied:
            running = DECAY * running + (1 - DECAY) * message.square().mean().item()
        expected = (running / (1 - DECAY**12)) ** 0.5
        assert interface.scale.value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("context_size", [None, 3])
def test_a_pass_that_is_not_backpropagated_changes_nothing(context_size):
    net = DNI(network(), eager=True, context_size=context_size)
    forward_pass(net, context_size).backward()
    before = copy.deepcopy(net.state_dict())
    dropped = forward_pass(net, context_size)
    del dropped
    assert_same_state(before, net.state_dict())
    for name in net.interfaces:
        measured = f"_dni.interfaces.{name}._dni.error.scale.count" in before
        assert measured == (context_size is not None)
