"""Adding task: predict the sum of a sequence of one-hot digits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from . import sequences


class AddingTask(sequences.DigitTask):
    """The label is the sum of the digits."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args, args.length * (args.digits - 1) + 1)
        # The best constant answer is the most probable sum. Convolutions with the distribution of
        # one digit give the distribution of the sum.
        distribution = torch.ones(1, dtype=torch.float64)
        digit = torch.full((1, 1, args.digits), 1 / args.digits, dtype=torch.float64)
        for _ in range(args.length):
            distribution = F.conv1d(
                distribution.view(1, 1, -1), digit, padding=args.digits - 1
            ).flatten()
        self.chance_error = 1 - distribution.max().item()

    def label(self, digits: Tensor) -> Tensor:
        """Compute the sums ``(count,)`` of digits ``(count, length)``."""
        return digits.sum(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = sequences.digit_parser("adding_task", __doc__, steps=3000, length=3)
    return sequences.run(parser, AddingTask, argv)


if __name__ == "__main__":
    sys.exit(main())
