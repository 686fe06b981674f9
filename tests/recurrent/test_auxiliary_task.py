"""The auxiliary task: predict the next synthetic gradient."""

import torch
from torch import nn

from pytorch_dni import DNI, FutureGradient, Linear_DNI, TemporalInterface
from tests.support.multiwindow import GradientSum, window_loss
from tests.support.recurrent_zoo import data, Sequence


def test_the_auxiliary_task_follows_the_equation():
    torch.manual_seed(0)
    interface = TemporalInterface(
        Linear_DNI(6, 8, 6, norm=None),
        future=FutureGradient(factor=1.0, bound=None, auxiliary=0.3, probe=10**9, guard=False),
        optim=GradientSum,
    )
    interface.double()
    interface.scale.measure(torch.full((2, 6), 0.5, dtype=torch.float64))  # The scale is 0.5.
    for module in (interface.synthesizer, interface.auxiliary):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    first, last, own = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    valid_mask = torch.tensor([True, True, False, True])
    predicted = interface.inject(last, None)
    true = interface.true_gradient(first, own, valid_mask, None)
    torch.testing.assert_close(predicted, 0.5 * interface.synthesizer(last, None)[0].detach())
    leaf = first.clone().requires_grad_()
    error = (interface.auxiliary.layers(leaf) - predicted / 0.5) * valid_mask.unsqueeze(1)
    (gradient,) = torch.autograd.grad(0.5 * error.square().sum(), leaf, retain_graph=True)
    torch.testing.assert_close(true, own + 0.3 * 0.5 * gradient)
    expected = torch.autograd.grad(error.square().mean(), [*interface.auxiliary.parameters()])
    for parameter, grad in zip(interface.auxiliary.parameters(), expected, strict=True):
        torch.testing.assert_close(interface.learner.optimizer.state[parameter]["sum"], grad)


def test_the_auxiliary_network_learns_and_is_saved():
    torch.manual_seed(0)
    net = DNI(Sequence(nn.GRU).double(), future=FutureGradient(factor=1.0, auxiliary=0.1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    state = None
    for x, y in data(windows=40):
        out, state = net(x, state)
        optimizer.zero_grad()
        window_loss(out, y).backward()
        optimizer.step()
    auxiliary = net.interfaces["core.state"].auxiliary
    assert all(parameter.any() for parameter in auxiliary.parameters())
    state_dict = net.state_dict()
    assert not any("auxiliary" in key for key in net.network.state_dict())
    loaded = DNI(Sequence(nn.GRU).double(), future=FutureGradient(factor=1.0, auxiliary=0.1))
    loaded.load_state_dict(state_dict)
    for ours, theirs in zip(
        loaded.interfaces["core.state"].auxiliary.parameters(), auxiliary.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
