"""Recurrent networks in the user's loops: skipped modules, windows without a loss, errors."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import ContextError, DNI, DNIError, FutureGradient, synthesizer_context
from tests.support.recurrent_zoo import data, Sequence
from tests.support.temporal_windows import network_and_reference


def test_a_module_may_skip_windows():
    class Sometimes(Sequence):
        def forward(self, x, state=None, skip=False):
            if skip:
                return self.head(torch.ones(3, 5, 4)), state
            return super().forward(x, state)

    net = DNI(Sometimes(nn.GRU))
    x, state = torch.randn(3, 5, 3), None
    for skip in (False, False, True, False, True, True, False):
        out, state = net(x, state, skip)
        out.sum().backward()
        state = state.detach()
    assert net.stats()["core.state"].updates == 3


def test_backward_state_teaches_a_window_without_a_loss():
    network, net, _ = network_and_reference(probe=10**9)
    state = torch.randn(5, 4, dtype=torch.float64)
    with pytest.raises(DNIError, match="backward_state"):
        net.backward_state()
    for x, y in data(4):
        out, state = net(x, state)
        F.mse_loss(out, y).backward()
    net.zero_grad()
    interface = net.interfaces["core.state"]
    interface.scale.add(1e-3)
    nn.init.normal_(interface.synthesizer.layers.last.weight)
    updates = interface.stats().updates
    x = data(1)[0][0]
    _, state = net(x, state)
    net.backward_state()
    assert network.core.u.weight.grad.any()
    assert network.v.weight.grad is None
    assert interface.stats().updates == updates + 1
    with pytest.raises(DNIError, match="backward_state"):
        net.backward_state()
    net(x, state)[0].sum().backward()
    assert interface.stats().updates == updates + 2


def test_a_failed_forward_pass_does_not_change_the_count_of_lessons():
    x, labels = torch.randn(3, 5, 3), torch.zeros(5, dtype=torch.int64)
    counts = []
    for fails in (False, True):
        net, state = DNI(Sequence(nn.GRU), context_size=3), None
        for _ in range(5):
            if fails and state is not None:
                with pytest.raises(ContextError, match="needs a context"):
                    net(x, state)
                with pytest.raises(RuntimeError), synthesizer_context(labels):
                    net(x[..., :2], state)
            with synthesizer_context(labels):
                out, state = net(x, state)
            out.sum().backward()
        counts.append(net.stats()["core.state"].updates)
    assert counts == [4, 4]


def test_outputs_may_change_in_place_and_windows_be_backpropagated_together():
    torch.manual_seed(1)
    network = Sequence(nn.GRU)
    grads = []
    for inplace in (False, True):
        net = DNI(copy.deepcopy(network), future=FutureGradient(factor=1.0))
        for x, _ in data(5):
            out, state = net(x.float(), None)
            second, _ = net(x.float(), state)
            loss = F.relu(out, inplace).sum() + F.relu(second, inplace).sum()
            net.zero_grad()
            loss.backward()
        grads.append([p.grad for p in net.parameters()])
        assert net.stats()["core.state"].updates == 9  # No window follows the last one.
    for ours, theirs in zip(*grads, strict=True):
        assert torch.equal(ours, theirs)
