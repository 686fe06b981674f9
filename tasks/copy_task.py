"""Copy: random binary vectors, to be repeated after an end marker.

With --window T a recurrent net learns on windows of T steps, and the sequences grow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from . import options, sequences, training, truncated
from .episodes import Episode, EpisodeTask
from .modes import Recipe
from .task import Batch


def answer_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of the answered bits, the mean over them.

    Args:
        prediction: Logits, ``(*, bits)``; what stands behind the bits is left out.
        target: Bits and, last, whether they are to be answered here: ``(*, bits + 1)``.
    """
    bits, answered = target[..., :-1], target[..., -1:]
    prediction = prediction[..., : bits.shape[-1]]
    weight = answered.expand_as(bits)
    total = F.binary_cross_entropy_with_logits(prediction, bits, weight, reduction="sum")
    return total / weight.sum().clamp_min(1)


class CopyTask(sequences.SequenceTask):
    """Input: the bits and a channel for the end marker; then nothing, while the answer is due."""

    # At the other positions there is nothing for a local loss to predict.
    local_params = {"loss": answer_loss}  # noqa: RUF012
    chance = 0.5

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self._bits, self._length = args.bits, args.length
        self.input_size = args.bits + 1
        self.output_size = args.bits
        self.context_size = args.bits + 1

    def sample(self, count: int, random: torch.Generator) -> Batch:
        """``2 * length + 1`` positions; the target's last channel tells where answers are due."""
        length, bits = self._length, self._bits
        vectors = torch.randint(2, (count, length, bits), generator=random).float()
        input = torch.zeros(count, 2 * length + 1, bits + 1)
        input[:, :length, :bits] = vectors
        input[:, length, bits] = 1
        target = torch.zeros(count, 2 * length + 1, bits + 1)
        target[:, length + 1 :, :bits] = vectors
        target[:, length + 1 :, bits] = 1
        return Batch(input, target, target)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of the answer."""
        return answer_loss(output, target)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """The fraction of wrong bits in the answer."""
        due = batch.target[..., -1] == 1
        return ((output[due] > 0) != (batch.target[due][:, :-1] > 0)).float().mean()


def _make(args: argparse.Namespace) -> tuple[CopyTask, list[Recipe]]:
    return CopyTask(args), sequences.recipes(args)


class CopyEpisodes(EpisodeTask):
    """For windows: the difficulty is the number of vectors."""

    start = 1

    def __init__(self, args: argparse.Namespace) -> None:
        self._bits = args.bits
        self.input_size, self.output_size = args.bits + 1, args.bits

    def sample(self, difficulty: int, batch: int, random: torch.Generator) -> Episode:
        """``2 * difficulty + 1`` steps."""
        vectors = torch.randint(2, (difficulty, batch, self._bits), generator=random).float()
        input = torch.zeros(2 * difficulty + 1, batch, self._bits + 1)
        input[:difficulty, :, : self._bits] = vectors
        input[difficulty, :, self._bits] = 1
        target = torch.zeros(2 * difficulty + 1, batch, self._bits)
        target[difficulty + 1 :] = vectors
        due = torch.zeros(2 * difficulty + 1)
        due[difficulty + 1 :] = 1
        return Episode(input, target, due)


def _windows(argv: Sequence[str]) -> int:
    parser = truncated.parser("copy_task", __doc__)
    parser.add_argument("--bits", type=options.number(int, 1), default=4,
        help="width of the vectors (default: %(default)s)")  # fmt: skip
    return truncated.main(parser, CopyEpisodes, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    given = sys.argv[1:] if argv is None else argv
    if any(argument.split("=")[0] == "--window" for argument in given):
        return _windows(given)
    parser = sequences.parser("copy_task", __doc__, steps=2000, length=5)
    parser.add_argument("--bits", type=options.number(int, 1), default=4,
        help="width of the vectors (default: %(default)s)")  # fmt: skip
    return training.main(parser, _make, argv)


if __name__ == "__main__":
    sys.exit(main())
