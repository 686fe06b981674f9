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
    net(torch.randn(4, 6)).sum().backward()
    assert {s.updates for s in net.stats().values()} == {1}
    assert all(p.grad is None for p in after)


def plain(value):
    """Return state as plain data that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    return [plain(child) for child in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize(
    "options",
    [{"unlock": "backward"}, {"unlock": "update"}, {"exact_every": 2}, {"eager": True}],
    ids=str,
)
def test_a_failed_backward_pass_leaves_statistics_and_scales(options):
    """The pass has reached both cuts when it raises."""
    network = mlp()
    net = DNI(network, example_input=torch.randn(2, 6), **options)
    for _ in range(4):
        net(torch.randn(4, 6)).square().mean().backward()
    before = plain(net.state_dict())

    def fail(grad):
        raise RuntimeError("stop")

    parameter = next(network.parameters())
    handle = parameter.register_hook(fail)
    for _ in range(2):
        loss = net(torch.randn(4, 6)).square().mean()
        with pytest.raises(RuntimeError, match="stop"):
            loss.backward()
        assert plain(net.state_dict()) == before
    handle.remove()
    net(torch.randn(4, 6)).square().mean().backward()
    assert plain(net.state_dict()) != before
