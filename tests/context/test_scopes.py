"""Contexts: where a scope applies."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytorch_dni import DNI, Linear_DNI, LocalError_DNI, synthesizer_context
from pytorch_dni.context import current_context
from tests.support.recording import Recording_DNI


def test_scopes_nest_and_end_when_the_body_raises():
    a, b = torch.tensor([0]), torch.tensor([1])
    assert current_context() is None
    with pytest.raises(RuntimeError, match="body"), synthesizer_context(a):
        assert current_context().raw is not None
        with synthesizer_context(b):
            assert torch.equal(current_context().raw, b)
            with synthesizer_context(None):
                assert current_context() is None
        assert torch.equal(current_context().raw, a)
        raise RuntimeError("body")
    assert current_context() is None


def test_scopes_of_threads_are_independent():
    found, ready, go = {}, threading.Barrier(2), threading.Barrier(2)

    def work(i):
        with synthesizer_context(torch.tensor([i])):
            ready.wait(5)
            found[i] = current_context().raw.item()
            go.wait(5)

    with synthesizer_context(torch.tensor([7])):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert current_context().raw.item() == 7
    assert found == {0: 0, 1: 1}


def test_synthesizers_use_the_context_of_the_forward_pass():
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    net = DNI(network, dni_network=Recording_DNI, context_size=2)
    with synthesizer_context(torch.tensor([0, 1])):
        loss = net(torch.randn(2, 4)).sum()
    with synthesizer_context(torch.tensor([1, 1])):
        loss.backward()
    assert torch.equal(Recording_DNI.seen[-1][:, 5:], torch.eye(2))


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("kind", [Linear_DNI, LocalError_DNI])
def test_recomputed_parts_use_the_context_of_their_forward_pass(reentrant, placed, kind):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU())
            self.outer = nn.Linear(5, 3)

        def forward(self, x):
            return self.outer(checkpoint(self.inner, x, use_reentrant=reentrant))

    plain = Checkpointed()
    network = copy.deepcopy(plain)
    example = torch.randn(2, 4) if placed else None
    net = DNI(network, context_size=3, dni_network=kind, example_input=example)
    plain.forward = lambda x: plain.outer(plain.inner(x))
    other = DNI(plain, context_size=3, dni_network=kind, example_input=example)
    for labels in torch.tensor([[0, 1], [2, 1], [1, 0]]):
        x = torch.randn(2, 4, requires_grad=True)
        for one in (net, other):
            one.zero_grad()
            with synthesizer_context(labels):
                loss = one(x).square().sum()
            loss.backward()
        if placed:
            for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
                assert torch.equal(ours.grad, theirs.grad)
    assert all(stats.updates for stats in net.stats().values())
