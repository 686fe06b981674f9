"""A language model on windows of a text, one mode and one seed of it."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import DNI, FutureGradient

from .cells import CELLS, detached
from .options import TaskError
from .task import seed_of

#: Truncated backpropagation on windows, and on windows four times as long; synthetic gradients.
MODES = ("bptt", "bptt4", "dni")
_SPLITS = ("train", "valid", "test")


class Text:
    """Penn Treebank as numbers.

    Args:
        folder: Holds ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``.
        symbols: Splits a text into symbols.

    Attributes:
        vocabulary: The symbols of the training text, in their order of appearance.
        splits: Their numbers in each text.

    Raises:
        TaskError: A file is missing.
    """

    def __init__(self, folder: Path | None, symbols: Callable[[str], list[str]]) -> None:
        if folder is None:
            raise TaskError("where is the Penn Treebank? give --data DIR")
        texts = {}
        for split in _SPLITS:
            path = folder / f"ptb.{split}.txt"
            try:
                texts[split] = symbols(path.read_text())
            except (OSError, UnicodeDecodeError) as error:
                raise TaskError(f"--data {folder}: cannot read ptb.{split}.txt") from error
        self.vocabulary = list(dict.fromkeys(texts["train"]))
        number = {symbol: i for i, symbol in enumerate(self.vocabulary)}
        unknown = number.get("<unk>", 0)
        self.splits = {
            split: torch.tensor([number.get(symbol, unknown) for symbol in text])
            for split, text in texts.items()
        }


class LanguageModel(nn.Module):
    """Embedding, recurrent layer, and a linear layer with the embedding's weights.

    Shape:
        Symbols ``(time, batch)`` to logits ``(time, batch, vocabulary)`` and the state.
    """

    def __init__(self, vocabulary: int, cell: str, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.core = CELLS[cell](hidden, hidden)
        self.head = nn.Linear(hidden, vocabulary)
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, symbols: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits of the next symbols, and the last state."""
        output, state = self.core(self.embedding(symbols), state)
        return self.head(output), state


class Run:
    """One mode, one seed."""

    def __init__(self, mode: str, seed: int, text: Text, args: argparse.Namespace) -> None:
        self.mode, self.seed = mode, seed
        self.updates, self.seconds = 0, 0.0
        self.history: list[tuple[int, float, float]] = []
        self._args = args
        self.window = 4 * args.window if mode == "bptt4" else args.window
        torch.manual_seed(seed_of(seed, -1))
        self._random = torch.Generator().manual_seed(seed_of(seed, 0))
        self.network = LanguageModel(len(text.vocabulary), args.cell, args.hidden).to(args.device)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=args.lr)
        self.net: nn.Module = self.network
        if mode == "dni":
            self.net = DNI(
                self.network,
                self._optimizer,
                hidden_size=args.synthesizer_hidden,
                future=FutureGradient(factor=args.factor, bound=args.bound),
                grad_lr=args.grad_lr,
            )
        self._train = _streams(text.splits["train"], args.batch).to(args.device)
        self._valid = _streams(text.splits["valid"], 10).to(args.device)
        self._place, self._state = 0, None

    def update(self) -> None:
        """Learn from one window."""
        if self._place + 1 >= len(self._train):
            self._place, self._state = 0, None
        # Windows begin elsewhere in each pass through the text.
        size = self.window
        if not self._place:
            size = int(torch.randint(self.window, (), generator=self._random)) + 1
        end = min(self._place + size, len(self._train) - 1)
        given, asked = self._train[self._place : end], self._train[self._place + 1 : end + 1]
        start = time.perf_counter()
        output, state = self.net(given, self._state)
        loss = F.cross_entropy(output.flatten(0, 1), asked.flatten())
        self._optimizer.zero_grad()
        loss.backward()
        if self._args.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._args.clip)
        self._optimizer.step()
        if self._args.device.type != "cpu":
            torch.accelerator.synchronize(self._args.device)
        self.seconds += time.perf_counter() - start
        self._place, self._state = end, detached(state)
        self.updates += 1

    def row(self) -> dict[str, Any]:
        """The figures that are kept."""
        return {
            "mode": self.mode,
            "seed": self.seed,
            "updates": self.updates,
            "seconds": self.seconds,
            "history": self.history,
        }

    def evaluate(self) -> float:
        """Bits for each symbol of the validation text."""
        self.net.eval()
        total, count, state = 0.0, 0, None
        with torch.no_grad():
            for place in range(0, len(self._valid) - 1, 200):
                end = min(place + 200, len(self._valid) - 1)
                output, state = self.net(self._valid[place:end], state)
                asked = self._valid[place + 1 : end + 1].flatten()
                total += F.cross_entropy(output.flatten(0, 1), asked, reduction="sum").item()
                count += len(asked)
        self.net.train()
        bits = total / count / math.log(2)
        self.history.append((self.updates, self.seconds, bits))
        return bits


def _streams(numbers: Tensor, batch: int) -> Tensor:
    length = len(numbers) // batch
    if length < 2:
        raise TaskError(f"--batch {batch} is too much for a text of {len(numbers)} symbols")
    return numbers[: length * batch].view(batch, length).t().contiguous()
