"""Argmax: the position, or the value, of the maximum of a sequence of one-hot digits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from . import options, sequences, training
from .modes import Recipe
from .task import Batch


class ArgmaxTask(sequences.LabelTask):
    """The label is the position (of equal maxima the first) or the value of the largest digit."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args, args.length if args.target == "position" else args.digits)
        self._digits, self._length, self._target = args.digits, args.length, args.target
        self.input_size = args.digits
        # Of the maximum's distribution, (k / digits) ** length up to the k-th digit: the value is
        # best guessed as the largest digit, the position as the first, for the sake of ties.
        n, digits = args.length, args.digits
        if args.target == "value":
            self.chance = (1 - 1 / digits) ** n
        else:
            self.chance = 1 - sum((k / digits) ** (n - 1) for k in range(1, digits + 1)) / digits

    def sample(self, count: int, random: torch.Generator) -> Batch:
        """Digits below ``--digits``, and what is asked of their maximum."""
        digits = torch.randint(self._digits, (count, self._length), generator=random)
        if self._target == "value":
            label = digits.amax(1)
        else:
            # Later positions lose a little, so that the first of equal maxima is the largest.
            lead = torch.arange(self._length, 0, -1)
            label = (digits * self._length + lead).argmax(1)
        return self.labelled(F.one_hot(digits, self._digits).float(), label)


def _make(args: argparse.Namespace) -> tuple[ArgmaxTask, list[Recipe]]:
    return ArgmaxTask(args), sequences.recipes(args)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = sequences.parser("argmax_task", __doc__, steps=2000, length=8)
    add = parser.add_argument
    add("--digits", type=options.number(int, 2), default=10,
        help="number of digits to draw from (default: %(default)s)")  # fmt: skip
    add("--target", choices=["position", "value"], default="position",
        help="what to tell of the maximum (default: %(default)s)")  # fmt: skip
    return training.main(parser, _make, argv)


if __name__ == "__main__":
    sys.exit(main())
