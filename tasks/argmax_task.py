"""Argmax task: predict the position, or the value, of the largest digit of a sequence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from . import options, sequences


class ArgmaxTask(sequences.DigitTask):
    """The label is the position (the first one, of equal maxima) or the value of the maximum."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args, args.length if args.target == "position" else args.digits)
        self._target = args.target
        # The maximum is below k with probability (k / digits) ** length. Its most probable value is
        # the largest digit; its most probable position is the first, because ties go to the first.
        n, digits = args.length, args.digits
        if args.target == "value":
            self.chance_error = (1 - 1 / digits) ** n
        else:
            first_is_maximum = sum((k / digits) ** (n - 1) for k in range(1, digits + 1)) / digits
            self.chance_error = 1 - first_is_maximum

    def label(self, digits: Tensor) -> Tensor:
        """Compute the labels ``(count,)`` of digits ``(count, length)``."""
        if self._target == "value":
            return digits.amax(1)
        # The offset is larger at earlier positions, so the first of equal maxima is the largest;
        # it differs by less than the length, so it never outweighs a larger digit.
        offsets = torch.arange(self._length, 0, -1)
        return torch.argmax(digits * self._length + offsets, 1)


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    own = sequences.digit_parser("argmax_task", __doc__, steps=2000, length=8)
    own.add_argument(
        "--target",
        choices=["position", "value"],
        default="position",
        help="what to predict about the maximum (default: %(default)s)",
    )
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return sequences.run(parser(), ArgmaxTask, argv)


if __name__ == "__main__":
    sys.exit(main())
