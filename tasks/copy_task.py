"""Copy task: repeat a sequence of random binary vectors after an end marker.

With --window T, a recurrent network is trained on windows of T time steps of longer and longer
sequences.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from . import episode_training, options, sequences
from .episodes import Episode, EpisodeTask
from .task import Batch


def copy_episode(vectors: Tensor) -> Episode:
    """Return the episode that shows vectors and an end marker, and then asks for the vectors.

    Args:
        vectors: Bits, ``(length, batch, bits)``.

    Returns:
        An episode of ``2 * length + 1`` steps. Its input is the bits and a channel for the end
        marker; while the network answers, it is 0.
    """
    length, batch, bits = vectors.shape
    steps = 2 * length + 1
    input = torch.zeros(steps, batch, bits + 1)
    input[:length, :, :bits] = vectors
    input[length, :, bits] = 1
    target = torch.zeros(steps, batch, bits)
    target[length + 1 :] = vectors
    mask = torch.zeros(steps)
    mask[length + 1 :] = 1
    return Episode(input, target, mask)


def answer_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the binary cross-entropy of the bits that the mask selects, the mean over them.

    Args:
        prediction: Logits, ``(*, bits)``; further channels are ignored.
        target: Bits and, last, the mask: ``(*, bits + 1)``.
    """
    bits, mask = target[..., :-1], target[..., -1:]
    prediction = prediction[..., : bits.shape[-1]]
    weight = mask.expand_as(bits)
    total = F.binary_cross_entropy_with_logits(prediction, bits, weight, reduction="sum")
    return total / weight.sum().clamp_min(1)


class CopyTask(sequences.SequenceTask):
    """The task on whole sequences of ``--length`` vectors."""

    # The mask keeps local losses from predicting at positions that ask for no answer.
    local_loss_params = {"loss": answer_loss}  # noqa: RUF012
    chance_error = 0.5
    error_meaning = "share of wrong bits in the answer"

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self._bits, self._length = args.bits, args.length
        self.input_size = args.bits + 1
        self.output_size = args.bits
        self.context_size = args.bits + 1

    def sample(self, count: int, random: torch.Generator) -> Batch:
        """Return sequences; the last channel of their target and context is the mask."""
        vectors = torch.randint(2, (count, self._length, self._bits), generator=random).float()
        episode = copy_episode(vectors.transpose(0, 1))
        mask = episode.mask.view(-1, 1, 1).expand(-1, count, 1)
        target = torch.cat([episode.target, mask], 2).transpose(0, 1).contiguous()
        return Batch(episode.input.transpose(0, 1).contiguous(), target, target)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the binary cross-entropy of the answer."""
        return answer_loss(output, target)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """Compute the fraction of wrong bits in the answer."""
        mask = batch.target[..., -1] == 1
        return ((output[mask] > 0) != (batch.target[mask][:, :-1] > 0)).float().mean()


class CopyEpisodes(EpisodeTask):
    """The task on windows; the difficulty is the number of vectors."""

    initial_difficulty = 1

    def __init__(self, args: argparse.Namespace) -> None:
        self._bits = args.bits
        self.input_size, self.output_size = args.bits + 1, args.bits

    def sample(self, difficulty: int, batch: int, random: torch.Generator) -> Episode:
        """Return new episodes of ``2 * difficulty + 1`` steps."""
        vectors = torch.randint(2, (difficulty, batch, self._bits), generator=random).float()
        return copy_episode(vectors)


def parser() -> options.Parser:
    """Return a parser with the options of training on whole sequences."""
    own = sequences.sequence_parser("copy_task", __doc__, steps=1000, length=5)
    own.add_integer("--bits", 4, "width of the vectors")
    return own


def window_parser() -> options.Parser:
    """Return a parser with the options of training on windows."""
    own = episode_training.episode_parser("copy_task", __doc__)
    own.add_integer("--bits", 4, "width of the vectors")
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    given = sys.argv[1:] if argv is None else argv
    if any(argument.split("=")[0] == "--window" for argument in given):
        return episode_training.run(window_parser(), CopyEpisodes, given)
    return sequences.run(parser(), CopyTask, argv)


if __name__ == "__main__":
    sys.exit(main())
