"""Regression task: a perceptron learns the outputs of a fixed random network, the teacher.

All modes have the same settings. The error is the fraction of the variance that is not explained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from . import comparison, comparison_options, options
from .modes import Configuration
from .task import Batch, step_generator, Task

_TEST_BATCHES, _TEST_BATCH_SIZE = 4, 1024
_TEACHER_HIDDEN = 64
# Larger weights give a function that is harder to learn.
_TEACHER_GAIN = 1.5


class Teacher:
    """A fixed random network: layers of [linear, tanh] and a linear one, with standardised outputs.

    Over normally distributed inputs, each output has mean 0 and variance 1.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        layers: Number of hidden layers.
    """

    def __init__(self, inputs: int, outputs: int, layers: int) -> None:
        # No training step is negative, so none uses these random numbers.
        random = step_generator(0, -2)
        sizes = [inputs, *[_TEACHER_HIDDEN] * layers]
        self._weights = [
            torch.randn(size, next_size, generator=random) * (_TEACHER_GAIN / size**0.5)
            for size, next_size in zip(sizes, [*sizes[1:], outputs], strict=True)
        ]
        self._biases = [torch.randn(size, generator=random) for size in sizes[1:]]
        sample = self._raw(torch.randn(10_000, inputs, generator=random))
        self._mean, self._std = sample.mean(0), sample.std(0)

    def __call__(self, input: Tensor) -> Tensor:
        """Compute the outputs ``(batch, outputs)`` of inputs ``(batch, inputs)``."""
        return (self._raw(input) - self._mean) / self._std

    def _raw(self, input: Tensor) -> Tensor:
        *weights, last = self._weights
        for weight, bias in zip(weights, self._biases, strict=True):
            input = torch.tanh(input @ weight + bias)
        output: Tensor = input @ last
        return output


class RegressionTask(Task):
    """Regression to the outputs of a teacher, which are also the context.

    Each training step has new samples; the teacher and the test set are the same for all seeds.

    Args:
        args: Options of the program.
    """

    local_loss_params = {"loss": F.mse_loss}  # noqa: RUF012
    chance_error = 1.0  # that of the mean of the targets
    error_meaning = "share of the variance that is not explained"

    def __init__(self, args: argparse.Namespace) -> None:
        self._inputs, self._outputs = args.inputs, args.outputs
        self._hidden, self._depth = args.hidden, args.depth
        self._batch_size, self._device = args.batch, args.device
        self._teacher = Teacher(args.inputs, args.outputs, args.teacher_depth)
        random = step_generator(0, -3)
        self._test = [self._sample(_TEST_BATCH_SIZE, random) for _ in range(_TEST_BATCHES)]
        targets = torch.cat([batch.target for batch in self._test])
        self._variance = targets.var(0, correction=0).mean()
        self.context_size = args.outputs
        self.default_steps = 2000
        self.layers = args.parts

    def build_network(self) -> nn.Module:
        """Build ``--depth`` times [Linear, LayerNorm, GELU], and a linear layer."""
        layers: list[nn.Module] = []
        for size in [self._inputs, *[self._hidden] * (self._depth - 1)]:
            layers += [nn.Linear(size, self._hidden), nn.LayerNorm(self._hidden), nn.GELU()]
        return nn.Sequential(*layers, nn.Linear(self._hidden, self._outputs))

    def training_batch(self, seed: int, step: int) -> Batch:
        """Return new random samples for each step."""
        return self._sample(self._batch_size, step_generator(seed, step))

    def test_batches(self) -> Iterable[Batch]:
        """Return the test set."""
        return self._test

    def _sample(self, count: int, random: torch.Generator) -> Batch:
        # The teacher computes on the CPU, so that its targets are the same on all devices.
        input = torch.randn(count, self._inputs, generator=random)
        target = self._teacher(input).to(self._device)
        return Batch(input.to(self._device), target, target)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean squared error."""
        return F.mse_loss(output, target)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """Compute the mean squared error divided by the variance of the test targets."""
        return F.mse_loss(output, batch.target) / self._variance


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = comparison_options.equal_comparison_parser(
        "regression", __doc__, batch=128, every=200, default_length="2000"
    )
    parser.add_integer("--inputs", 16, "number of inputs")
    parser.add_integer("--outputs", 8, "number of outputs")
    parser.add_integer("--hidden", 128, "width of the hidden layers")
    parser.add_depth(4, "hidden layers")
    parser.add_depth(2, "hidden layers of the teacher", "--teacher-depth")
    return parser


def _prepare(args: argparse.Namespace) -> tuple[RegressionTask, list[Configuration]]:
    return RegressionTask(args), comparison_options.equal_configurations(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return comparison.run(parser(), _prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
