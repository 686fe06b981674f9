"""MNIST with one cut in the middle: interfaces written into the network, compared with DNI.

Rows "by hand" have interfaces in the network itself; rows "wrapped" leave them to DNI.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, ClassVar

import torch
from torch import nn, Tensor

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    InterfaceStats,
)

from . import comparison, options
from .mnist import CLASSES, mnist_parser, MNISTTask, PIXELS
from .modes import Configuration
from .task import Task

MODES = {
    "bp": "backpropagation",
    "dni": "update unlock",
    "cdni": "update unlock with the label as context",
    "full": "full unlock with the label as context",
    "halves": "two halves that exchange nothing but messages, with the label as context",
}
_DEPTH = 3
_CUTS = {"mlp": 6, "cnn": 3}  # index of the second ReLU, and of the first pooling


class ConvSynthesizer(nn.Module):
    """Convolutions that predict feature maps from feature maps and, optionally, a context.

    Args:
        in_channels: Number of channels of the trigger.
        out_channels: Number of channels of the prediction.
        context_dim: Number of channels of the context; None for no context.
        stride: Stride of the first convolution.
    """

    feature_dim: ClassVar[int] = 1

    def __init__(
        self, in_channels: int, out_channels: int, context_dim: int | None = None, stride: int = 1
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        channels = in_channels + (context_dim or 0)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(16, track_running_stats=False),
            nn.ReLU(),
            nn.Conv2d(16, out_channels, 3, padding=1),
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, trigger: Tensor, context: Tensor | None) -> Tensor:
        """Predict the message, in units of its running root mean square."""
        input = trigger if context is None else torch.cat([trigger, context], 1)
        prediction: Tensor = self.layers(input)
        return prediction


class UpdateUnlocked(nn.Module):
    """A network whose earlier layers learn without waiting for the later layers."""

    def __init__(self, earlier: nn.Module, later: nn.Module, interface: BackwardInterface) -> None:
        super().__init__()
        self.earlier, self.later, self.interface = earlier, later, interface

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, 10)`` of images ``(batch, 1, 28, 28)``."""
        logits: Tensor = self.later(self.interface(self.earlier(images)))
        return logits

    def stats(self) -> dict[str, InterfaceStats]:
        """Return the statistics of the predicted gradients."""
        return {"middle": self.interface.stats()}


class FullyUnlocked(nn.Module):
    """A network whose parts wait for each other neither in the backward nor in the forward pass.

    Args:
        earlier: Layers before the cut.
        later: Layers after the cut.
        interface: Predicts the activation from the images, and its gradient.
        flatten: Whether the forward synthesizer takes the images as vectors.
    """

    def __init__(
        self,
        earlier: nn.Module,
        later: nn.Module,
        interface: BidirectionalInterface,
        flatten: bool,
    ) -> None:
        super().__init__()
        self.earlier, self.later, self.interface = earlier, later, interface
        self.flatten = flatten

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, 10)`` of images ``(batch, 1, 28, 28)``."""
        trigger = images.flatten(1) if self.flatten else images
        logits: Tensor = self.later(self.interface(self.earlier(images), trigger))
        return logits

    def stats(self) -> dict[str, InterfaceStats]:
        """Return the statistics of the predicted gradients."""
        return {"middle": self.interface.stats()}


class Halves(nn.Module):
    """Two halves of a network that could run in different processes.

    Each half has its own copy of the interface. The half of the earlier layers only sends to its
    copy, the half of the later layers only receives from its copy.

    Args:
        earlier: Layers before the cut.
        later: Layers after the cut.
        sender: Interface of the earlier layers.
        receiver: Interface of the later layers.
        flatten: Whether the forward synthesizers take the images as vectors.
        synchronise_every: Number of steps after which each interface takes over what the other one
            has learned.
    """

    def __init__(
        self,
        earlier: nn.Module,
        later: nn.Module,
        sender: BidirectionalInterface,
        receiver: BidirectionalInterface,
        flatten: bool,
        synchronise_every: int,
    ) -> None:
        super().__init__()
        self.earlier, self.later = earlier, later
        self.sender, self.receiver = sender, receiver
        self.receiver.load_state_dict(self.sender.state_dict())
        self.flatten = flatten
        self.synchronise_every = synchronise_every
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, 10)`` of images ``(batch, 1, 28, 28)``."""
        logits: Tensor
        if not self.training:
            logits = self.later(self.earlier(images))
            return logits
        trigger = images.flatten(1) if self.flatten else images
        # The earlier layers have no loss; after this call their gradients are complete.
        self.sender.send(self.earlier(images), trigger)
        logits = self.later(self.receiver.receive(trigger))
        self.steps += 1
        if self.steps % self.synchronise_every == 0:
            self._synchronise()
        return logits

    def _synchronise(self) -> None:
        # The sender learns to predict activations, the receiver to predict gradients.
        activations = self.sender.forward_interface.state_dict()
        self.receiver.forward_interface.load_state_dict(activations)
        gradients = self.receiver.backward_interface.state_dict()
        self.sender.backward_interface.load_state_dict(gradients)

    def stats(self) -> dict[str, InterfaceStats]:
        """Return the statistics of the predicted gradients."""
        return {"middle": self.receiver.stats()}


@dataclass(frozen=True)
class HandWrittenConfiguration(Configuration):
    """A row whose interfaces are part of the network itself.

    Attributes:
        network_type: ``"mlp"`` or ``"cnn"``.
        synchronise_every: Number of steps after which two halves exchange what they have learned.
    """

    network_type: str = "mlp"
    synchronise_every: int = 100

    def wrap(self, network: nn.Module, optimizer: torch.optim.Optimizer, task: Task) -> nn.Module:
        """Return the network in two parts with an interface between them."""
        assert isinstance(network, nn.Sequential)
        cut = _CUTS[self.network_type]
        earlier = cast(nn.Sequential, network[: cut + 1])
        later = cast(nn.Sequential, network[cut + 1 :])
        flatten = self.network_type == "mlp"
        split: nn.Module
        if self.mode in ("dni", "cdni"):
            interface = BackwardInterface(self._backward_synthesizer(earlier))
            split = UpdateUnlocked(earlier, later, interface)
        elif self.mode == "full":
            split = FullyUnlocked(earlier, later, self._bidirectional_interface(earlier), flatten)
        else:
            sender, receiver = (self._bidirectional_interface(earlier) for _ in range(2))
            split = Halves(earlier, later, sender, receiver, flatten, self.synchronise_every)
        return split.to(next(network.parameters()).device)

    def _bidirectional_interface(self, earlier: nn.Sequential) -> BidirectionalInterface:
        forward = self._forward_synthesizer(earlier)
        return BidirectionalInterface(forward, self._backward_synthesizer(earlier))

    def _backward_synthesizer(self, earlier: nn.Sequential) -> nn.Module:
        context = None if self.mode == "dni" else CLASSES
        size = self._features(earlier)
        if self.network_type == "mlp":
            return BasicSynthesizer(size, 1, max(32, size // 4), context_dim=context)
        return ConvSynthesizer(size, size, context)

    def _forward_synthesizer(self, earlier: nn.Sequential) -> nn.Module:
        size = self._features(earlier)
        if self.network_type == "mlp":
            return BasicSynthesizer(size, 1, size, PIXELS, CLASSES)
        return ConvSynthesizer(1, size, CLASSES, stride=2)

    def _features(self, earlier: nn.Sequential) -> int:
        """Return the number of features, or channels, of the activation at the cut."""
        if self.network_type == "mlp":
            return cast(nn.Linear, earlier[-3]).out_features  # before BatchNorm and ReLU
        return cast(nn.Conv2d, earlier[0]).out_channels


def configurations(args: argparse.Namespace) -> list[Configuration]:
    """Return the rows of the comparison: each mode by hand and, where ``DNI`` has it, wrapped."""
    rows: list[Configuration] = []
    for mode in args.mode:
        if mode == "bp":
            rows.append(Configuration(mode, args.lr))
            continue
        rows.append(
            HandWrittenConfiguration(
                mode,
                args.lr,
                "by hand",
                network_type=args.network,
                synchronise_every=args.synchronise,
            )
        )
        if mode != "halves":
            dni_arguments: dict[str, Any] = {
                "layers": str(_CUTS[args.network]),
                "grad_lr": args.grad_lr,
                "unlock": "full" if mode == "full" else "update",
            }
            rows.append(Configuration(mode, args.lr, "wrapped", dni_arguments))
    return rows


def _prepare(args: argparse.Namespace) -> tuple[MNISTTask, list[Configuration]]:
    return MNISTTask(args, _DEPTH), configurations(args)


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = mnist_parser("mnist_interfaces", __doc__, MODES)
    parser.add_integer(
        "--synchronise", 100, "steps between exchanges of the two halves", metavar="STEPS"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return comparison.run(parser(), _prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
