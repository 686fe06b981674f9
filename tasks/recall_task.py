"""Recall task: predict the first bit of a sequence after many random bits.

A recurrent network is trained on windows of sequences that get longer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from . import episode_training, options
from .episodes import Episode, EpisodeTask


class RecallTask(EpisodeTask):
    """The difficulty is the number of random bits after the first one.

    Input channels: the bit of the step as -1 or 1, a flag at the first step, and an end marker.
    """

    input_size = 3
    output_size = 1

    def __init__(self, args: argparse.Namespace) -> None:
        self.initial_difficulty = args.start

    def sample(self, difficulty: int, batch: int, random: torch.Generator) -> Episode:
        """Return new episodes of ``difficulty + 2`` steps; the last one asks for the answer."""
        length = difficulty + 2
        input = torch.zeros(length, batch, 3)
        input[:-1, :, 0] = torch.randint(2, (length - 1, batch), generator=random) * 2.0 - 1
        input[0, :, 1] = 1
        input[-1, :, 2] = 1
        target = torch.zeros(length, batch, 1)
        target[-1, :, 0] = (input[0, :, 0] > 0).float()
        mask = torch.zeros(length)
        mask[-1] = 1
        return Episode(input, target, mask)


def parser() -> options.Parser:
    """Return a parser with the options of training on windows."""
    own = episode_training.episode_parser("recall_task", __doc__)
    own.add_integer("--start", 1, "random bits after the first one, initially", minimum=0)
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return episode_training.run(parser(), RecallTask, argv)


if __name__ == "__main__":
    sys.exit(main())
