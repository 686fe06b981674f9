"""Recall: one flagged bit, then distractors, then a delimiter; the bit is to be told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from . import options, truncated
from .episodes import Episode, EpisodeTask


class RecallTask(EpisodeTask):
    """Difficulty: the number of distractors.

    Channels of the input: a random bit in each step, the flag, the delimiter.
    """

    input_size = 3
    output_size = 1

    def __init__(self, args: argparse.Namespace) -> None:
        self.start = args.start

    def sample(self, difficulty: int, batch: int, random: torch.Generator) -> Episode:
        """``difficulty + 2`` steps, of which the last asks."""
        length = difficulty + 2
        input = torch.zeros(length, batch, 3)
        input[:-1, :, 0] = torch.randint(2, (length - 1, batch), generator=random) * 2.0 - 1
        input[0, :, 1] = 1
        input[-1, :, 2] = 1
        target = torch.zeros(length, batch, 1)
        target[-1, :, 0] = (input[0, :, 0] > 0).float()
        due = torch.zeros(length)
        due[-1] = 1
        return Episode(input, target, due)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = truncated.parser("recall_task", __doc__)
    parser.add_argument("--start", type=options.number(int, 0), default=1,
        help="distractors at the start (default: %(default)s)")  # fmt: skip
    return truncated.main(parser, RecallTask, argv)


if __name__ == "__main__":
    sys.exit(main())
