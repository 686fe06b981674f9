"""A user's program: trains a wrapped network, and one with an interface by hand."""

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from typing_extensions import assert_type

import pytorch_dni
from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    DNI,
    ForwardInterface,
    InterfaceStats,
    synthesizer_context,
)


class ByHand(nn.Module):
    """Two layers with an interface between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.interface = BackwardInterface(BasicSynthesizer(8))

    def forward(self, input: Tensor) -> Tensor:
        """Run both layers."""
        hidden = assert_type(self.interface(self.first(input).relu()), Tensor)
        output: Tensor = self.second(hidden)
        return output


def exchanged(
    forward: ForwardInterface, both: BidirectionalInterface, message: Tensor, trigger: Tensor
) -> Tensor:
    """Pass a message across two other interfaces."""
    passed = assert_type(forward(message, trigger), Tensor)
    return assert_type(both(passed, trigger), Tensor)


def train(net: nn.Module, labels_as_context: bool) -> list[float]:
    """Return the losses of some steps."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        with synthesizer_context(y if labels_as_context else None):
            loss = F.cross_entropy(net(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    wrapped = DNI(bare, unlock="update", context_size=3, grad_optim="adamw")
    losses = train(wrapped, True)
    stats = assert_type(wrapped.stats("backward"), dict[str, InterfaceStats])
    assert all(figures.updates == 20 for figures in stats.values())
    assert train(ByHand(), False)[-1] < 2
    print(pytorch_dni.__file__)
    print(losses[0], losses[-1])
