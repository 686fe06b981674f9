"""Training of a language model on windows of the Penn Treebank."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import FutureGradient

from . import options
from .cells import CELLS
from .errors import TaskError
from .plots import HistoryEntry
from .window_training import WindowRun

MODES = {
    "bp": "backpropagation through time, truncated at the ends of windows",
    "bp4": "the same on windows four times as long",
    "dni": "synthetic gradients of the state at the end of a window",
}
_SPLITS = ("train", "valid", "test")
_VALIDATION_BATCH, _VALIDATION_WINDOW = 10, 200


def add_text_folder(parser: options.Parser) -> None:
    """Add the option ``--data``, the folder of the texts."""
    parser.add_data("ptb.train.txt, ptb.valid.txt and ptb.test.txt, or has a folder ptb/ that does")


class PennTreebank:
    """The texts of the Penn Treebank as numbers of tokens.

    Args:
        folder: Holds ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, or has a folder
            ``ptb`` that does.
        tokenize: Splits a text into tokens.

    Attributes:
        vocabulary: The tokens of the training text, in their order of appearance.
        splits: Positions in the vocabulary of the tokens of ``"train"``, ``"valid"`` and
            ``"test"``.

    Raises:
        TaskError: A file is missing or cannot be read.
    """

    def __init__(self, folder: Path | None, tokenize: Callable[[str], list[str]]) -> None:
        if folder is None:
            raise TaskError("where is the Penn Treebank? give --data DIR (or set DNI_DATA)")
        inner = folder / "ptb"
        found = inner if inner.is_dir() and not (folder / "ptb.train.txt").exists() else folder
        texts = {}
        for split in _SPLITS:
            path = found / f"ptb.{split}.txt"
            try:
                texts[split] = tokenize(path.read_text())
            except (OSError, UnicodeDecodeError) as error:
                raise TaskError(f"--data {folder}: cannot read ptb.{split}.txt") from error
        self.vocabulary = list(dict.fromkeys(texts["train"]))
        numbers = {token: i for i, token in enumerate(self.vocabulary)}
        unknown = numbers.get("<unk>", 0)
        self.splits = {
            split: torch.tensor([numbers.get(token, unknown) for token in text])
            for split, text in texts.items()
        }


class LanguageModel(nn.Module):
    """Embedding, recurrent layer, and a linear layer that shares the weights of the embedding.

    Shape:
        Maps tokens ``(time, batch)`` and a state to logits ``(time, batch, vocabulary)`` and the
        last state.
    """

    def __init__(self, vocabulary: int, cell: str, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.core = CELLS[cell](hidden, hidden)
        self.head = nn.Linear(hidden, vocabulary)
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the logits of the next tokens and the last state."""
        output, state = self.core(self.embedding(tokens), state)
        return self.head(output), state


class LanguageRun(WindowRun):
    """Training of one language model, with one mode and one seed.

    The entries of its history are the bits for each token of the validation text.
    """

    def __init__(self, mode: str, seed: int, text: PennTreebank, args: argparse.Namespace) -> None:
        def build_network() -> nn.Module:
            return LanguageModel(len(text.vocabulary), args.cell, args.hidden)

        future = FutureGradient(factor=args.factor, bound=args.bound)
        dni_arguments = {"future": future} if mode == "dni" else None
        super().__init__(mode, seed, args, build_network, dni_arguments)
        self._training_tokens = split_into_streams(text.splits["train"], args.batch).to(args.device)
        validation_tokens = split_into_streams(text.splits["valid"], _VALIDATION_BATCH)
        self._validation_tokens = validation_tokens.to(args.device)

    def _next_end(self) -> int:
        last = len(self._training_tokens) - 1  # it is a target alone
        if self._position >= last:
            self._position, self._state = 0, None
        size = self.window
        assert size is not None
        if self._position == 0:
            # The windows of each pass through the text have other positions.
            size = int(torch.randint(size, (), generator=self._random)) + 1
        return min(self._position + size, last)

    def _forward(self, window: slice) -> tuple[Tensor, Any]:
        output, state = self.model(self._training_tokens[window], self._state)
        targets = self._training_tokens[window.start + 1 : window.stop + 1]
        return F.cross_entropy(output.flatten(0, 1), targets.flatten()), state

    def evaluate(self) -> float:
        """Return the bits for each token of the validation text, and add them to the history."""
        self.model.eval()
        tokens = self._validation_tokens
        total, count, state = 0.0, 0, None
        with torch.no_grad():
            for start in range(0, len(tokens) - 1, _VALIDATION_WINDOW):
                end = min(start + _VALIDATION_WINDOW, len(tokens) - 1)
                output, state = self.model(tokens[start:end], state)
                targets = tokens[start + 1 : end + 1].flatten()
                total += F.cross_entropy(output.flatten(0, 1), targets, reduction="sum").item()
                count += len(targets)
        self.model.train()
        bits = total / count / math.log(2)
        self.history.append(HistoryEntry(self.steps, self.seconds, bits))
        return bits

    def example_input(self) -> Tensor:
        """Return the tokens of a window, on the device."""
        return self._training_tokens[: self.window]

    def progress(self) -> str:
        """Return the last evaluation for the progress bar."""
        return f"{self.history[-1].value:.3f} bits/token" if self.history else "not evaluated yet"


def split_into_streams(tokens: Tensor, batch: int) -> Tensor:
    """Split a text into equally long parts, which are read side by side: ``(time, batch)``.

    Raises:
        TaskError: The text is too short for the batch.
    """
    length = len(tokens) // batch
    if length < 2:
        raise TaskError(f"--batch {batch} is too large for a text of {len(tokens)} tokens")
    return tokens[: length * batch].view(batch, length).t().contiguous()
