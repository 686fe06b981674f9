"""MNIST with interfaces written into the network by hand, next to the wrapper and backpropagation.

One cut in the middle: dni and cdni unlock updates, without and with labels as context; full unlocks
the forward pass too; halves is a network in two, each half with an interface of its own, that
exchange nothing but what these send and receive.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn, Tensor

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    InterfaceStats,
)

from . import options, training
from .mnist import MNISTTask, parser_for
from .modes import Recipe
from .task import Task

MODES = ("bp", "dni", "cdni", "full", "halves")
_CLASSES = 10
_PIXELS = 28 * 28
_DEPTH = 3
_CUTS = {"mlp": "6", "cnn": "3"}  # the ReLU of the second layer; the first pooling
# Without labels a synthesizer knows less, and between two exchanges the halves drift apart.
_LRS = {"dni": 1e-4, "halves": 1e-4}
_LR = 3e-4


class MapSynthesizer(nn.Module):
    """Convolutions from maps, and a context laid along them, to maps."""

    feature_dim: ClassVar[int] = 1

    def __init__(
        self, channels: int, output: int, context_dim: int | None = None, stride: int = 1
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.layers = nn.Sequential(
            nn.Conv2d(channels + (context_dim or 0), 16, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(16, track_running_stats=False),
            nn.ReLU(),
            nn.Conv2d(16, output, 3, padding=1),
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, trigger: Tensor, context: Tensor | None) -> Tensor:
        """Maps in units of their running root mean square."""
        given = trigger if context is None else torch.cat([trigger, context], 1)
        maps: Tensor = self.layers(given)
        return maps


class UpdateUnlocked(nn.Module):
    """The part in front learns from synthetic gradients."""

    def __init__(self, front: nn.Module, behind: nn.Module, interface: BackwardInterface) -> None:
        super().__init__()
        self.front, self.behind, self.interface = front, behind, interface

    def forward(self, images: Tensor) -> Tensor:
        """Scores ``(batch, 10)`` from images ``(batch, 1, 28, 28)``."""
        hidden = self.interface(self.front(images))
        scores: Tensor = self.behind(hidden)
        return scores

    def stats(self) -> dict[str, InterfaceStats]:
        """How well it predicts."""
        return {"middle": self.interface.stats()}


class FullyUnlocked(nn.Module):
    """The part behind does not wait for the activation either."""

    def __init__(
        self, front: nn.Module, behind: nn.Module, interface: BidirectionalInterface, flat: bool
    ) -> None:
        super().__init__()
        self.front, self.behind, self.interface = front, behind, interface
        self.flat = flat

    def forward(self, images: Tensor) -> Tensor:
        """Scores ``(batch, 10)`` from images ``(batch, 1, 28, 28)``."""
        trigger = images.flatten(1) if self.flat else images
        hidden = self.interface(self.front(images), trigger)
        scores: Tensor = self.behind(hidden)
        return scores

    def stats(self) -> dict[str, InterfaceStats]:
        """How well it predicts gradients."""
        return {"middle": self.interface.stats()}


class Halves(nn.Module):
    """Two halves of a network that could run anywhere.

    Each has an interface of its own. The one in front only sends, the one behind only receives;
    every ``every`` steps the interfaces take over what the other one has learned.
    """

    def __init__(
        self,
        front: nn.Module,
        behind: nn.Module,
        interfaces: Sequence[BidirectionalInterface],
        flat: bool,
        every: int,
    ) -> None:
        super().__init__()
        self.front, self.behind = front, behind
        self.ours, self.theirs = interfaces
        self.theirs.load_state_dict(self.ours.state_dict())
        self.flat = flat
        self.every = every
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """Scores ``(batch, 10)`` from images ``(batch, 1, 28, 28)``."""
        if not self.training:
            whole: Tensor = self.behind(self.front(images))
            return whole
        trigger = images.flatten(1) if self.flat else images
        # The half in front has no loss: its gradients are there when this returns.
        self.ours.send(self.front(images), trigger)
        scores: Tensor = self.behind(self.theirs.receive(trigger))
        self.steps += 1
        if self.steps % self.every == 0:
            self._synchronise()
        return scores

    def _synchronise(self) -> None:
        # Activations are learned in front, gradients behind.
        ahead, back = self.ours.forward_interface, self.theirs.backward_interface
        self.theirs.forward_interface.load_state_dict(ahead.state_dict())
        self.ours.backward_interface.load_state_dict(back.state_dict())

    def stats(self) -> dict[str, InterfaceStats]:
        """How well it predicts gradients."""
        return {"middle": self.theirs.stats()}


class ByHand(Recipe):
    """A row whose interfaces stand in the network itself."""

    def wrap(self, network: nn.Module, optim: torch.optim.Optimizer, task: Task) -> nn.Module:
        """The network in two parts, with an interface between them."""
        assert isinstance(network, nn.Sequential)
        kind, cut, every = (self.options[key] for key in ("network", "cut", "every"))
        front, behind = network[: int(cut) + 1], network[int(cut) + 1 :]
        flat = kind == "mlp"
        size = network[int(cut) - 2].out_features if flat else network[0].out_channels
        context = None if self.mode == "dni" else _CLASSES

        def backward() -> nn.Module:
            if flat:
                return BasicSynthesizer(size, 1, max(32, size // 4), context_dim=context)
            return MapSynthesizer(size, size, context)

        def forward() -> nn.Module:
            if flat:
                return BasicSynthesizer(size, 1, size, _PIXELS, context)
            return MapSynthesizer(1, size, context, stride=2)

        net: nn.Module
        if self.mode in ("dni", "cdni"):
            net = UpdateUnlocked(front, behind, BackwardInterface(backward()))
        elif self.mode == "full":
            net = FullyUnlocked(front, behind, BidirectionalInterface(forward(), backward()), flat)
        else:
            both = [BidirectionalInterface(forward(), backward()) for _ in range(2)]
            net = Halves(front, behind, both, flat, every)
        return net.to(next(network.parameters()).device)


def recipes(args: argparse.Namespace) -> list[Recipe]:
    """By hand and wrapped, for each mode that has both."""
    rows: list[Recipe] = []
    cut = _CUTS[args.network]
    for mode in args.mode:
        lr = _LRS.get(mode, _LR) if args.lr is None else args.lr
        if mode == "bp":
            rows.append(Recipe(mode, lr))
            continue
        settings = {"network": args.network, "cut": cut, "every": args.synchronise}
        rows.append(ByHand(mode, lr, "by hand", settings))
        if mode != "halves":
            wrapper: dict[str, Any] = {"layers": cut, "grad_lr": args.grad_lr}
            wrapper["unlock"] = "full" if mode == "full" else "update"
            rows.append(Recipe(mode, lr, "wrapped", wrapper))
    return rows


def _make(args: argparse.Namespace) -> tuple[MNISTTask, list[Recipe]]:
    task = MNISTTask(argparse.Namespace(**vars(args), depth=_DEPTH))
    if args.steps is None and args.epochs is not None:
        args.steps = task.total
    return task, recipes(args)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = parser_for("mnist_interfaces", __doc__, modes=MODES)
    add = parser.add_argument
    add("--synchronise", type=options.number(int, 1), default=100, metavar="STEPS",
        help="steps between exchanges of the two halves (default: %(default)s)")  # fmt: skip
    return training.main(parser, _make, argv)


if __name__ == "__main__":
    sys.exit(main())
