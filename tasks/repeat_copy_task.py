"""Repeat copy: random vectors of bits and a number, to be repeated that many times."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from . import options, truncated
from .episodes import Episode, EpisodeTask


class RepeatCopyTask(EpisodeTask):
    """Difficulty: the length of the sequence.

    Channels of the input: the bits, and one that marks the end by the number of repetitions.
    """

    start = 1

    def __init__(self, args: argparse.Namespace) -> None:
        self._bits, self._repeats = args.bits, args.repeats
        self.input_size = args.bits + 1
        self.output_size = args.bits + 1

    def sample(self, difficulty: int, batch: int, random: torch.Generator) -> Episode:
        """``difficulty`` vectors, up to ``repeats`` times, and an end marker to be told."""
        length, bits = difficulty, self._bits
        times = int(torch.randint(1, self._repeats + 1, (), generator=random))
        vectors = torch.randint(2, (length, batch, bits), generator=random).float()
        total = length + 1 + times * length + 1
        input = torch.zeros(total, batch, bits + 1)
        input[:length, :, :bits] = vectors
        input[length, :, bits] = times
        target = torch.zeros(total, batch, bits + 1)
        target[length + 1 : -1, :, :bits] = vectors.repeat(times, 1, 1)
        target[-1, :, bits] = 1
        due = torch.zeros(total)
        due[length + 1 :] = 1
        return Episode(input, target, due)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = truncated.parser("repeat_copy_task", __doc__)
    parser.add_argument("--bits", type=options.number(int, 1), default=4,
        help="width of the vectors (default: %(default)s)")  # fmt: skip
    parser.add_argument("--repeats", type=options.number(int, 1), default=3,
        help="repetitions at most (default: %(default)s)")  # fmt: skip
    return truncated.main(parser, RepeatCopyTask, argv)


if __name__ == "__main__":
    sys.exit(main())
