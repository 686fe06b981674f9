"""Transformer task: predict the next character of the Penn Treebank with a causal transformer.

All modes have the same settings. Losses are in bits for each character.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from . import comparison, comparison_options, options
from .errors import TaskError
from .language_runs import add_text_folder, PennTreebank
from .modes import Configuration
from .task import Batch, step_generator, Task

_TEST_BATCHES, _TEST_BATCH_SIZE = 16, 64
FEATURES_PER_HEAD = 24


class CharTransformer(nn.Module):
    """Embedding of characters and positions, transformer blocks, LayerNorm and a linear layer.

    The blocks normalise their inputs and look at earlier positions only.

    Args:
        vocabulary: Number of different characters.
        length: Number of positions.
        width: Number of features, a multiple of 24.
        depth: Number of blocks.

    Shape:
        Maps characters ``(batch, length)`` to logits ``(batch, length, vocabulary)``.
    """

    def __init__(self, vocabulary: int, length: int, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                width // FEATURES_PER_HEAD,
                4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits of the next character at each position."""
        hidden = self.embedding(input) + self.positions
        for block in self.blocks:
            hidden = block(hidden, src_mask=self.mask, is_causal=True)
        output: Tensor = self.head(self.norm(hidden))
        return output


class CharTransformerTask(Task):
    """Prediction of the next character at each position of random excerpts.

    The next characters are the context, too.

    Args:
        args: Options of the program.
        text: The texts.

    Raises:
        TaskError: A text is shorter than an excerpt, or the width does not fit.
    """

    def __init__(self, args: argparse.Namespace, text: PennTreebank) -> None:
        check_width(args)
        self._length, self._width, self._depth = args.length, args.hidden, args.depth
        self._batch_size, self._device = args.batch, args.device
        self._training, test = text.splits["train"], text.splits["valid"]
        for split in (self._training, test):
            if len(split) <= args.length:
                raise TaskError(f"--length {args.length} is longer than a text: give a shorter one")
        self.context_size = len(text.vocabulary)
        random = step_generator(0, -2)  # no training step is negative
        self._test = [self._sample(test, _TEST_BATCH_SIZE, random) for _ in range(_TEST_BATCHES)]
        counts = torch.bincount(test)
        self.chance_error = 1 - (counts.max() / counts.sum()).item()
        self.default_steps = 600
        blocks = [f"blocks.{number}" for number in range(args.depth)]
        self.layers = blocks if args.parts is None else args.parts
        self.summary_note = "losses in bits for each character"
        self.error_meaning = "share of wrong characters"

    def build_network(self) -> nn.Module:
        """Build the transformer."""
        return CharTransformer(self.context_size, self._length, self._width, self._depth)

    def training_batch(self, seed: int, step: int) -> Batch:
        """Return random excerpts of the training text, new ones in each step."""
        return self._sample(self._training, self._batch_size, step_generator(seed, step))

    def test_batches(self) -> Iterable[Batch]:
        """Return excerpts of the validation text."""
        return self._test

    def _sample(self, text: Tensor, count: int, random: torch.Generator) -> Batch:
        starts = torch.randint(len(text) - self._length, (count, 1), generator=random)
        excerpts = text[starts + torch.arange(self._length + 1)].to(self._device)
        next_characters = excerpts[:, 1:]
        return Batch(excerpts[:, :-1], next_characters, next_characters)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean cross-entropy in bits."""
        return F.cross_entropy(output.flatten(0, 1), target.flatten()) / math.log(2)

    def error(self, output: Tensor, batch: Batch) -> Tensor:
        """Compute the fraction of wrong characters."""
        return (output.argmax(-1) != batch.target).float().mean()


def check_width(args: argparse.Namespace) -> None:
    """Check that heads of equal size make up the width of the transformer.

    Raises:
        TaskError: They do not.
    """
    if args.hidden % FEATURES_PER_HEAD:
        raise TaskError(f"--hidden {args.hidden} is no multiple of {FEATURES_PER_HEAD}")


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = comparison_options.equal_comparison_parser(
        "char_transformer", __doc__, batch=32, every=200, default_length="600"
    )
    add_text_folder(parser)
    parser.add_integer("--length", 32, "number of positions")
    parser.add_integer("--hidden", 96, f"width of the blocks, a multiple of {FEATURES_PER_HEAD}")
    parser.add_depth(4, "blocks")
    return parser


def _prepare(args: argparse.Namespace) -> tuple[CharTransformerTask, list[Configuration]]:
    text = PennTreebank(args.data, list)
    return CharTransformerTask(args, text), comparison_options.equal_configurations(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return comparison.run(parser(), _prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
