"""Adding task: predict the sum of a sequence of one-hot digits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from . import options, sequences


class AddingTask(sequences.DigitTask):
    """The label is the sum of the digits."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args, args.length * (args.digits - 1) + 1)
        # The best constant answer is the most probable sum. The power of the transformed
        # distribution of one digit is that of the sum.
        digit = torch.full((args.digits,), 1 / args.digits, dtype=torch.float64)
        transformed = torch.fft.rfft(digit, self.output_size) ** args.length
        distribution = torch.fft.irfft(transformed, self.output_size)
        self.chance_error = 1 - distribution.max().item()

    def label(self, digits: Tensor) -> Tensor:
        """Compute the sums ``(count,)`` of digits ``(count, length)``."""
        return digits.sum(1)


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    return sequences.digit_parser("adding_task", __doc__, steps=3000, length=3)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return sequences.run(parser(), AddingTask, argv)


if __name__ == "__main__":
    sys.exit(main())
