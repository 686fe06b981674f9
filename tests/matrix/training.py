"""The loops that most rows share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from tests.matrix.session import Session

CLASSES = 4


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.1)


def steps(
    build: Callable[[], nn.Module],
    batch: Callable[[], tuple[tuple[Any, ...], dict[str, Any], Any]],
    loss: Callable[..., Tensor] = lambda out, y: F.cross_entropy(out, y),
    optim: Callable[[nn.Module], torch.optim.Optimizer] = sgd,
    passes: int = 4,
    **options: Any,
) -> Callable[[Session], None]:
    """Return a row's run: the usual loop, on batches of ``(arguments, keywords, target)``."""

    def run(session: Session) -> None:
        network = build()
        opt = optim(network)
        net = session.wrap(network, opt, **options)
        for _ in range(passes):
            args, kwargs, y = batch()
            opt.zero_grad()
            loss(net(*args, **kwargs), y).backward()
            opt.step()

    return run


def train(session: Session, network: nn.Module, batch: Any = None, **options: Any) -> Any:
    """Train a classifier in the usual loop, and return what the session has made of it."""
    opt = sgd(network)
    net = session.wrap(network, opt, **options)
    loop(net, opt, batch)
    return net


def loop(net: Any, opt: torch.optim.Optimizer, batch: Any = None, passes: int = 4) -> None:
    """Run the usual loop."""
    for _ in range(passes):
        (x,), _, y = (batch or vectors())()
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()


def images(size: int = 32, batch: int = 4, channels: int = 3) -> Any:
    """Return a function that draws a batch of images and labels."""

    def draw() -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
        x = torch.randn(batch, channels, size, size)
        return (x,), {}, torch.randint(0, CLASSES, (batch,))

    return draw


def vectors(batch: int = 8, width: int = 6, dtype: torch.dtype = torch.float32) -> Any:
    """Return a function that draws a batch of vectors and labels."""

    def draw() -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
        return (torch.randn(batch, width).to(dtype),), {}, torch.randint(0, CLASSES, (batch,))

    return draw


def tokens(length: int = 6, batch: int = 4, vocabulary: int = 20) -> Any:
    """Return a function that draws a batch of tokens, and a label for each token."""

    def draw() -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
        x = torch.randint(0, vocabulary, (batch, length))
        return (x,), {}, torch.randint(0, CLASSES, (batch, length))

    return draw


def per_token(out: Tensor, y: Tensor) -> Tensor:
    """Return the mean loss of all tokens."""
    return F.cross_entropy(out.flatten(0, 1), y.flatten())


def mlp(depth: int = 3, width: int = 8, normalised: bool = True) -> nn.Sequential:
    """Return a classifier of vectors."""
    layers: list[nn.Module] = []
    for index in range(depth - 1):
        layers.append(nn.Linear(width if index else 6, width))
        if normalised:
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def batches(count: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches of vectors and labels."""
    for _ in range(count):
        (x,), _, y = vectors()()
        yield x, y


def simple(loop: Callable[[Any, torch.optim.Optimizer], None]) -> Callable[[Session], None]:
    """Return the run of a loop that trains one classifier."""

    def run(session: Session) -> None:
        network = mlp()
        opt = sgd(network)
        loop(session.wrap(network, opt), opt)

    return run
