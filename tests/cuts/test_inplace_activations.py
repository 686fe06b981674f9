"""In-place activations after a cut do not change what is learned."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, Linear_DNI
from tests.support.wrapped import WAYS
from tests.support.zoo import ZOO


@pytest.mark.parametrize("way", WAYS)
def test_inplace_activations_train_like_others(way):
    def build(inplace):
        torch.manual_seed(0)
        layers = [nn.Linear(6, 8), nn.ReLU(inplace), nn.Linear(8, 8), nn.ReLU(inplace)]
        return nn.Sequential(*layers, nn.Linear(8, 2))

    results = []
    for inplace in (False, True):
        network = build(inplace)
        opt = torch.optim.Adam(network.parameters(), lr=0.01)
        net = DNI(network, optim=opt, layers=["0", "2"], **WAYS[way])
        torch.manual_seed(1)
        for _ in range(6):
            opt.zero_grad()
            net(torch.randn(8, 6)).square().mean().backward()
            opt.step()
        results.append([p.detach() for p in network.parameters()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("eager", [False, True])
def test_the_first_lesson_uses_the_activation_before_an_inplace_change(eager):
    seen = []

    class Recording(Linear_DNI):
        def forward(self, input, hidden):
            seen.append(input)
            return super().forward(input, hidden)

    torch.manual_seed(0)
    net = DNI(
        ZOO["functional"].build(),
        layers="first",
        eager=eager,
        dni_network=Recording,
        example_input=ZOO["functional"].input(),
    )
    x = ZOO["functional"].input()
    expected = net.network.first.weight.detach() @ x.t() + net.network.first.bias.detach()[:, None]
    ZOO["functional"].loss(net(x)).backward()
    torch.testing.assert_close(seen[-1], expected.t())
