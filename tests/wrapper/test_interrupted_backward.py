"""A backward pass that raises teaches the synthesizers nothing."""

import pytest
import torch

from pytorch_dni import DNI
from tests.support.wrapped import synthesizer_parameters
from tests.support.zoo import mlp


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_a_failed_backward_pass_teaches_nothing(unlock):
    network = mlp()
    net = DNI(network, unlock=unlock, example_input=torch.randn(2, 6))

    def fail(grad):
        raise RuntimeError("stop")

    failing = network[0].register_forward_hook(lambda *call: call[-1].register_hook(fail) and None)
    loss = net(torch.randn(4, 6)).sum()
    failing.remove()
    before = [p.clone() for p in synthesizer_parameters(net)]
    with pytest.raises(RuntimeError, match="stop"):
        loss.backward()
    after = synthesizer_parameters(net)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)
    learner = net._rooms.learner
    assert learner._collected  # The lesson of the cut that the pass reached.
    out = net(torch.randn(4, 6))
    assert not learner._collected
    out.sum().backward()
    assert {s.updates for s in net.stats().values()} <= {1, 2}
    assert all(p.grad is None for p in after)
