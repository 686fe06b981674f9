"""Character language model on the Penn Treebank in several processes, with local losses.

Each process trains some blocks of a causal transformer. At the end of each part, a readout predicts
the next character at every position. The readouts are private, or one is shared by all parts.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import distributed, nn, Tensor
from torch.nn import functional as F

from pytorch_dni import DNI_Network

from . import options, pipeline_run
from .char_transformer import (
    CharTransformer,
    CharTransformerTask,
    check_width,
    FEATURES_PER_HEAD,
)
from .errors import TaskError
from .language_runs import add_text_folder, PennTreebank
from .task import step_seed, Task

_ROUND = 200  # steps from one evaluation to the next


def bits(output: Tensor, target: Tensor) -> Tensor:
    """Compute the mean cross-entropy at all positions, in bits."""
    return F.cross_entropy(output.flatten(0, 1), target.flatten()) / math.log(2)


class Readout(nn.Module):
    """LayerNorm and a linear layer, which predict the next character at each position.

    Args:
        width: Number of features.
        vocabulary: Number of different characters.
    """

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits ``(batch, length, vocabulary)``."""
        logits: Tensor = self.head(self.norm(hidden))
        return logits


class ReadoutLoss_DNI(DNI_Network):
    """Takes the gradient of a local loss: that of a readout like the one of the last part.

    Args:
        width: Number of features.
        vocabulary: Number of different characters.
    """

    predicts: ClassVar[str] = "loss"
    features_last: ClassVar[bool] = True
    default_lr: ClassVar[float] = 1e-3

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__(width, width, vocabulary)
        self.readout = Readout(width, vocabulary)

    def loss(self, activation: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of the readout, in bits."""
        return bits(self.readout(activation), target)


class TransformerPart(nn.Module):
    """Some blocks of a transformer; the first part embeds, the last one has the readout.

    Args:
        whole: The transformer, whose modules it takes over under the same names.
        numbers: Numbers of its blocks.
        first: Whether it is the first part.
        last: Whether it is the last part.
    """

    def __init__(
        self, whole: CharTransformer, numbers: Sequence[int], first: bool, last: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({str(number): whole.blocks[number] for number in numbers})
        self.mask: Tensor
        self.register_buffer("mask", whole.mask, persistent=False)
        self._first, self._last = first, last
        if first:
            self.embedding, self.positions = whole.embedding, whole.positions
        if last:
            self.norm, self.head = whole.norm, whole.head

    def forward(self, hidden: Tensor) -> Tensor:
        """Map characters, or an activation, to an activation, or logits."""
        if self._first:
            hidden = self.embedding(hidden) + self.positions
        for block in self.blocks.values():
            hidden = block(hidden, src_mask=self.mask, is_causal=True)
        if self._last:
            hidden = self.head(self.norm(hidden))
        return hidden


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = options.Parser(prog="python -m tasks.language_pipeline", description=__doc__)
    unlocks = ["update", "locked"]
    pipeline_run.add_pipeline_options(parser, batch=32, lr=1e-3, unlocks=unlocks)
    add_text_folder(parser)
    parser.add_steps(600)
    parser.add_argument(
        "--readout",
        choices=["private", "shared"],
        default="private",
        help="whether each part has a readout of its own, or all share one, whose copies are "
        "averaged every --average steps (default: %(default)s)",
    )
    parser.add_integer("--average", 10, "training steps between averages of the readouts")
    parser.add_integer("--length", 32, "number of positions")
    parser.add_integer("--hidden", 96, f"width of the blocks, a multiple of {FEATURES_PER_HEAD}")
    parser.add_depth(4, "blocks")
    parser.set_defaults(parts=None)
    return parser


class LanguageRun(pipeline_run.PipelineRun):
    """Prediction of the next character; evaluated every 200 batches."""

    @staticmethod
    def build_network(args: argparse.Namespace, classes: int) -> CharTransformer:
        """Return the transformer.

        Raises:
            TaskError: Its width does not fit.
        """
        check_width(args)
        return CharTransformer(classes, args.length, args.hidden, args.depth)

    def load_task(self) -> Task:
        """Return the texts.

        Raises:
            TaskError: They are missing, or options do not fit.
        """
        count = distributed.get_world_size()
        if self.args.depth < count:
            raise TaskError(f"--depth {self.args.depth} is less than a block for each rank")
        return CharTransformerTask(self.args, PennTreebank(self.args.data, list))

    def steps(self, task: Task) -> tuple[int, int]:
        """Return all batches, and those between two evaluations."""
        return self.args.steps, _ROUND

    def segment_steps(self) -> int:
        """Return the batches between two averages of the readouts."""
        shares = self.args.readout == "shared" and self.args.unlock == "update"
        return self.args.average if shares else self.args.every

    def build_parts(self, count: int) -> list[nn.Module]:
        """Return parts with about equally many blocks."""
        args = self.args
        whole = self.build_network(args, self.context_size)
        ends = [round(args.depth * part / count) for part in range(count + 1)]
        return [
            TransformerPart(whole, range(start, end), start == 0, end == args.depth)
            for start, end in pairwise(ends)
        ]

    def stage_options(self) -> dict[str, Any]:
        """Return the loss and, unless parts are locked, a readout for the end of the part."""
        options: dict[str, Any] = {"loss": bits}
        if self.args.unlock == "update":
            # The same on all ranks, as the readout of the last part is.
            torch.manual_seed(step_seed(self.args.seed, -3))
            made = ReadoutLoss_DNI(self.args.hidden, self.context_size)
            options.update(synthesizer=made, context_size=self.context_size)
        return options

    def after_segment(self) -> None:
        """Average the copies of the readout over all parts, where they share one."""
        if self.args.readout != "shared" or self.args.unlock != "update":
            return
        for parameter in self._readout().parameters():
            mean = parameter.detach().clone()
            distributed.all_reduce(mean)
            with torch.no_grad():
                parameter.copy_(mean.div_(distributed.get_world_size()))

    def _readout(self) -> nn.Module:
        cut = self.stage.cut
        if cut is None:
            assert isinstance(self.part, TransformerPart)
            return nn.ModuleList([self.part.norm, self.part.head])
        (interface,) = cut.interfaces.values()
        assert isinstance(interface.synthesizer, ReadoutLoss_DNI)
        return interface.synthesizer.readout

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the bits for each character."""
        return bits(output, target)

    def describe(self, value: float) -> str:
        """Return the bits for each character of the validation text."""
        return f"validation {value:.3f} bits for each character"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return pipeline_run.run_program("tasks.language_pipeline", parser(), LanguageRun, argv)


if __name__ == "__main__":
    sys.exit(main())
