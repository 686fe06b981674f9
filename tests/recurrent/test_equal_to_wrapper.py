"""A temporal interface placed by hand trains like the wrapper."""

import copy

import pytest
import torch
from torch.nn import functional as F

from pytorch_dni import backward, defer_backward, DNI, TemporalInterface
from tests.support.recurrent_zoo import data, NETWORKS


@pytest.mark.parametrize("kind", ["lstm", "gru cell", "own"])
def test_by_hand_and_wrapped_are_equal(kind):
    build, recurrent = NETWORKS[kind]
    network = build()
    wrapped = DNI(copy.deepcopy(network), recurrent=recurrent)
    first = data(1)[0][0].float()
    wrapped(first, None)
    like = wrapped.interfaces["core.state"]
    future = TemporalInterface(
        copy.deepcopy(like.synthesizer), batch_dim=-2 if kind != "own" else 0
    )
    nets = [wrapped, network]
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-2) for net in nets]
    states = [None, None]
    for x, y in data(40):
        optimizers[0].zero_grad()
        out, states[0] = wrapped(x.float(), states[0])
        F.mse_loss(out, y.float()).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        with defer_backward():
            begin = None if states[1] is None else future.make_trigger(states[1])
            out, states[1] = network(x.float(), begin)
            backward(F.mse_loss(out, y.float()))
            future.backward(states[1])
        optimizers[1].step()
    assert like.stats() == future.stats()
    assert like.stats().updates > 30
    for ours, theirs in zip(wrapped.network.parameters(), network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
