"""MNIST task in several processes: each trains one part of the network, and does not wait."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import Linear_DNI, LocalError_DNI, LocalLoss_DNI
from pytorch_dni.distributed import split

from . import options, pipeline_run
from .image_task import add_image_options
from .mnist import LEARNING_RATE, MNISTTask, perceptron, PIXELS
from .task import Task

_SYNTHESIZERS = {"local": LocalLoss_DNI, "local-error": LocalError_DNI, "linear": Linear_DNI}


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = options.Parser(prog="python -m tasks.mnist_pipeline", description=__doc__)
    unlocks = ["update", "full", "backward", "locked"]
    pipeline_run.add_pipeline_options(parser, batch=256, lr=LEARNING_RATE, unlocks=unlocks)
    parser.add_steps(None, "training steps, instead of --epochs")
    add_image_options(parser, "MNIST", "MNIST/")
    parser.add_argument(
        "--synthesizer",
        choices=[*_SYNTHESIZERS],
        default="local",
        help="how gradients are predicted with --unlock update and full: by a local loss, by a "
        "matrix from the error of a local head, or by an MLP from activation and label (default: "
        "%(default)s)",
    )
    parser.add_integer("--hidden", 256, "width of the hidden layers")
    parser.add_depth(3, "hidden layers")
    parser.set_defaults(network="mlp")
    return parser


class MNISTRun(pipeline_run.PipelineRun):
    """Classification of MNIST digits; evaluated after each epoch."""

    @staticmethod
    def build_network(args: argparse.Namespace, classes: int) -> nn.Module:
        """Return the perceptron, which always has ten classes."""
        return perceptron(args.depth, args.hidden)

    def load_task(self) -> Task:
        """Return the data set."""
        return MNISTTask(self.args, self.args.depth)

    def steps(self, task: Task) -> tuple[int, int]:
        """Return all steps, and those of an epoch."""
        steps = self.args.steps or task.default_steps
        return steps, task.default_steps // (self.args.epochs or 1)

    def build_parts(self, count: int) -> list[nn.Module]:
        """Return parts of about equal cost."""
        example = torch.zeros(2, 1, *[math.isqrt(PIXELS)] * 2)
        return split(self.build_network(self.args, self.context_size), count, example)

    def stage_options(self) -> dict[str, Any]:
        """Return loss, synthesizer, and the name of the last layer for the interface."""
        predicts = self.args.unlock in ("update", "full")
        return {
            "loss": F.cross_entropy,
            "synthesizer": _SYNTHESIZERS[self.args.synthesizer] if predicts else None,
            "context_size": self.context_size if predicts else None,
            "name": [*dict(self.part.named_children())][-1],
        }

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the fraction of wrong labels."""
        return (output.argmax(1) != target).float().mean()

    def describe(self, value: float) -> str:
        """Return the accuracy."""
        return f"test accuracy {100 * (1 - value):.2f} %"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return pipeline_run.run_program("tasks.mnist_pipeline", parser(), MNISTRun, argv)


if __name__ == "__main__":
    sys.exit(main())
