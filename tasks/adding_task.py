"""Adding: a sequence of one-hot digits, to be summed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from . import options, sequences, training
from .modes import Recipe
from .task import Batch


class AddingTask(sequences.LabelTask):
    """The label is the sum, answered with the last digit."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args, args.length * (args.digits - 1) + 1)
        self._digits, self._length = args.digits, args.length
        self.input_size = args.digits
        # Guessing is best at the commonest sum.
        counts = torch.ones(1, dtype=torch.float64)
        for _ in range(args.length):
            counts = F.conv1d(
                counts.view(1, 1, -1),
                torch.full((1, 1, args.digits), 1 / args.digits, dtype=torch.float64),
                padding=args.digits - 1,
            ).flatten()
        self.chance = 1 - counts.max().item()

    def sample(self, count: int, random: torch.Generator) -> Batch:
        """Digits below ``--digits``, and their sum."""
        digits = torch.randint(self._digits, (count, self._length), generator=random)
        total = digits.sum(1)
        return self.labelled(F.one_hot(digits, self._digits).float(), total)


def _make(args: argparse.Namespace) -> tuple[AddingTask, list[Recipe]]:
    return AddingTask(args), sequences.recipes(args)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = sequences.parser("adding_task", __doc__, steps=3000, length=3)
    parser.add_argument("--digits", type=options.number(int, 2), default=10,
        help="number of digits to draw from (default: %(default)s)")  # fmt: skip
    return training.main(parser, _make, argv)


if __name__ == "__main__":
    sys.exit(main())
