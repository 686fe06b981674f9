"""Repeat copy task: repeat a sequence of random binary vectors a given number of times.

A recurrent network is trained on windows of sequences that get longer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from . import episode_training, options
from .episodes import Episode, EpisodeTask


class RepeatCopyTask(EpisodeTask):
    """The difficulty is the number of vectors.

    Input channels: the bits, and one that marks the end by the number of repetitions.
    Output channels: the bits, and one that marks the end of the answer.
    """

    initial_difficulty = 1

    def __init__(self, args: argparse.Namespace) -> None:
        self._bits, self._max_repeats = args.bits, args.repeats
        self.input_size = args.bits + 1
        self.output_size = args.bits + 1

    def sample(self, difficulty: int, batch: int, random: torch.Generator) -> Episode:
        """Return new episodes, which all ask for the same random number of repetitions."""
        length, bits = difficulty, self._bits
        repeats = int(torch.randint(1, self._max_repeats + 1, (), generator=random))
        vectors = torch.randint(2, (length, batch, bits), generator=random).float()
        steps = length + 1 + repeats * length + 1
        input = torch.zeros(steps, batch, bits + 1)
        input[:length, :, :bits] = vectors
        input[length, :, bits] = repeats
        target = torch.zeros(steps, batch, bits + 1)
        target[length + 1 : -1, :, :bits] = vectors.repeat(repeats, 1, 1)
        target[-1, :, bits] = 1
        mask = torch.zeros(steps)
        mask[length + 1 :] = 1
        return Episode(input, target, mask)


def parser() -> options.Parser:
    """Return a parser with the options of training on windows."""
    own = episode_training.episode_parser("repeat_copy_task", __doc__)
    own.add_integer("--bits", 4, "width of the vectors")
    own.add_integer("--repeats", 3, "largest number of repetitions")
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return episode_training.run(parser(), RepeatCopyTask, argv)


if __name__ == "__main__":
    sys.exit(main())
