"""Train a residual network in little memory: ``layers=N, eager=True``.

Run it: ``python examples/residual_eager.py``. Each part gets its gradients as soon as it has run,
and its activations are freed. The labels are the context. The program counts the bytes that
autograd saves for backward passes.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import DNI, synthesizer_context

CLASSES, WIDTH, BLOCKS = 10, 64, 12


class Block(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Add what the block computes to its input."""
        output: Tensor = input + self.inner(input)
        return output


class SavedBytes:
    """Counts the bytes that autograd holds for a backward pass, and keeps the largest number."""

    def __init__(self) -> None:
        self.held = self.most = 0

    def pack(self, tensor: Tensor) -> Kept:
        """Count a tensor that is saved."""
        return Kept(tensor, self)


class Kept:
    """A saved tensor, which counts as long as it lives."""

    def __init__(self, tensor: Tensor, counter: SavedBytes) -> None:
        self.tensor, self._counter = tensor, counter
        counter.held += tensor.nbytes
        counter.most = max(counter.most, counter.held)

    def __del__(self) -> None:
        self._counter.held -= self.tensor.nbytes


def train(eager: bool, steps: int) -> tuple[float, int]:
    """Return the mean loss of the last steps, and the most bytes saved at a time."""
    torch.manual_seed(0)
    means = torch.randn(CLASSES, WIDTH)
    network = nn.Sequential(
        nn.Linear(WIDTH, WIDTH), *(Block() for _ in range(BLOCKS)), nn.Linear(WIDTH, CLASSES)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    # Four parts of about equal cost, cut where everything goes through: between blocks.
    net = DNI(network, optimizer, layers=4, eager=True, context_size=CLASSES) if eager else network
    losses = []
    for step in range(steps):
        labels = torch.randint(CLASSES, (64,))
        counter = SavedBytes()
        hooks = torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda kept: kept.tensor)
        optimizer.zero_grad()
        with hooks, synthesizer_context(labels if eager else None):
            loss = F.cross_entropy(net(means[labels] + 2 * torch.randn(64, WIDTH)), labels)
            loss.backward()
        optimizer.step()
        if step >= steps - 20:
            losses.append(loss.item())
    return sum(losses) / len(losses), counter.most


def main(steps: int) -> dict[str, tuple[float, int]]:
    """Train with backpropagation and with eager parts; print and return their figures."""
    found = {"backpropagation": train(False, steps), "eager parts": train(True, steps)}
    for name, (loss, saved) in found.items():
        print(f"{name}: loss {loss:.3f}, at most {saved / 1024:.0f} KiB of saved activations")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    main(parser.parse_args().steps)
