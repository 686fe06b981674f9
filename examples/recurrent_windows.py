"""Train a recurrent net on short windows, with a predicted gradient from later windows.

Run it: ``python examples/recurrent_windows.py``. The net reads a stream of bits and has to repeat
each bit some steps later. A gradient that stops at the end of a window of that length hardly
teaches it. The synthetic gradient at the last state does.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import DNI

DELAY, WINDOW, BATCH = 4, 4, 64


class Memory(nn.Module):
    """A GRU with a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 32, batch_first=True)
        self.readout = nn.Linear(32, 1)

    def forward(self, bits: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return a logit for each step, and the state for the next window."""
        hidden, state = self.gru(bits, state)
        return self.readout(hidden).squeeze(-1), state


def train(net: nn.Module, optimizer: torch.optim.Optimizer, windows: int, plain: bool) -> float:
    """Train on a stream of windows; return the share of right bits in the last ones."""
    generator = torch.Generator().manual_seed(0)
    before = torch.zeros(BATCH, DELAY)
    state, right = None, []
    for window in range(windows):
        bits = torch.randint(2, (BATCH, WINDOW), generator=generator).float()
        stream = torch.cat([before, bits], 1)
        target, before = stream[:, :WINDOW], stream[:, -DELAY:]
        optimizer.zero_grad()
        # Plain truncated backpropagation detaches the state; the wrapper does it by itself.
        state = state.detach() if plain and state is not None else state
        logits, state = net(bits.unsqueeze(-1), state)
        F.binary_cross_entropy_with_logits(logits, target).backward()
        optimizer.step()
        if window >= 0.9 * windows:
            right.append(((logits > 0) == (target > 0.5)).float().mean().item())
    return sum(right) / len(right)


def main(windows: int) -> dict[str, float]:
    """Train with truncated backpropagation and with synthetic gradients; print and return both."""
    found = {}
    for name in ("truncated backpropagation", "synthetic gradients"):
        torch.manual_seed(0)
        network = Memory()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        plain = name.startswith("truncated")
        net = network if plain else DNI(network, optim=optimizer)
        found[name] = train(net, optimizer, windows, plain)
        print(f"{name}: {100 * found[name]:.1f} % of the bits are right (half are by chance)")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2500, help="training steps, a window each")
    main(parser.parse_args().steps)
