"""Hand-written loops of the benchmarks compute what the library computes."""

import copy

import torch
from torch.nn import functional as F

from benchmarks import deep_networks, eager_by_hand
from benchmarks.overhead import by_hand, network
from pytorch_dni import DNI, Linear_DNI, synthesizer_context


def test_the_hand_written_loop_learns_the_same():
    torch.manual_seed(0)
    bare = network(inputs=12).double()
    inner = copy.deepcopy(bare)
    opt = torch.optim.SGD(inner.parameters(), lr=0.1)
    options = {"dni_network": Linear_DNI, "context_size": 10}
    net = DNI(inner, optim=opt, example_input=torch.randn(4, 12).double(), **options)
    # Adam enlarges rounding errors.
    hand = by_hand(bare, net, torch.optim.SGD(bare.parameters(), lr=0.1))
    for _ in range(20):
        x, y = torch.randn(32, 12).double(), torch.randint(0, 10, (32,))
        hand.step(x, y)
        opt.zero_grad()
        with synthesizer_context(y):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
    for a, b in zip(bare.parameters(), inner.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    for interface, synthesizer in zip(net.interfaces.values(), hand.synthesizers, strict=True):
        for a, b in zip(interface.parameters(), synthesizer.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


def test_the_hand_written_eager_loop_learns_the_same():
    torch.manual_seed(0)
    bare = deep_networks.mlp(12, 16, 6).build(3).double()
    inner = copy.deepcopy(bare)
    opt = torch.optim.SGD(inner.parameters(), lr=0.1)
    example = torch.randn(16, 12).double()
    net = DNI(inner, layers="blocks.*", hidden_size=6, eager=True, example_input=example)
    hand = eager_by_hand.by_hand(bare, net, torch.optim.SGD(bare.parameters(), lr=0.1))
    for _ in range(20):
        x, y = torch.randn(16, 12).double(), torch.randint(0, 10, (16,))
        hand.step(x, y)
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    for a, b in zip(bare.parameters(), inner.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
