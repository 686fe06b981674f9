"""Train your own convolutional network with the one line, beside plain backpropagation.

Run it: ``python examples/own_network.py``. It makes its data itself: images with a bright bar,
whose direction is the class.
"""

from __future__ import annotations

import argparse
import copy

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import DNI

CLASSES = 4


class Network(nn.Module):
    """Two convolutions and two linear layers, each activation function a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the classes."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images of 16 x 16 pixels with noise, and the directions of their bars."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    angle = labels * torch.pi / CLASSES
    place = torch.arange(16) - 7.5
    offset = torch.randint(-4, 5, (count, 1, 1), generator=generator)
    distance = (
        place.view(1, 16, 1) * angle.cos().view(-1, 1, 1)
        + place.view(1, 1, 16) * angle.sin().view(-1, 1, 1)
        - offset
    )
    images = (distance.abs() < 1.5).float() + 0.7 * torch.randn(count, 16, 16, generator=generator)
    return images.unsqueeze(1), labels


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    """Train as always; return the accuracy on further images."""
    generator = torch.Generator().manual_seed(0)
    net.train()
    for _ in range(steps):
        images, labels = batch(64, generator)
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    net.eval()
    images, labels = batch(2000, generator)
    with torch.no_grad():
        return (net(images).argmax(1) == labels).float().mean().item()


def main(steps: int) -> dict[str, float]:
    """Train two copies of a network, print their accuracies and return them."""
    torch.manual_seed(0)
    bare = Network()
    network = copy.deepcopy(bare)

    optimizer = torch.optim.Adam(bare.parameters(), lr=1e-3)
    accuracies = {"backpropagation": train(bare, optimizer, steps)}

    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    net = DNI(network, optim=optimizer)  # the only new line
    accuracies["synthetic gradients"] = train(net, optimizer, steps)

    for name, accuracy in accuracies.items():
        print(f"{name}: {100 * accuracy:.1f} % of new images")
    print(net.describe())
    for name, stats in net.stats().items():
        print(f"cut after {name}: cosine similarity to the true gradient {stats.cosine:.2f}")
    return accuracies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    main(parser.parse_args().steps)
