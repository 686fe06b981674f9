"""A recurrent net on windows of episodes, one mode and one seed of it.

A curriculum makes episodes longer whenever the error has become small.
"""

from __future__ import annotations

import argparse
import math
import time
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import Critic_DNI, DNI, FutureGradient, Linear_DNI, synthesizer_context

from .cells import CELLS, detached
from .task import seed_of

#: Truncated backpropagation on windows, on windows four times as long, and through whole
#: episodes; synthetic gradients; the same with the targets of the next window as context, with
#: lambda-returns as targets, with eligibility traces (a linear synthesizer), and with the auxiliary
#: task; and the gradient of a critic's prediction of the loss to come.
MODES = ("bptt", "bptt4", "full", "dni", "cdni", "returns", "traces", "auxiliary", "critic")
_DNI = MODES[3:]
_ENOUGH = 0.15  # bits of error for each bit asked for, under which episodes get longer
_PATIENCE = 20  # episodes at a length before it may grow
_DECAY = 0.9


class Episode(NamedTuple):
    """Sequences of one length.

    Attributes:
        input: ``(length, batch, input_size)``.
        target: Bits, ``(length, batch, output_size)``.
        due: Steps in which they are asked for, ``(length,)``.
    """

    input: Tensor
    target: Tensor
    due: Tensor


class EpisodeTask(ABC):
    """Makes episodes of a difficulty, which a curriculum raises by one at a time."""

    input_size: int
    output_size: int
    start: int

    @abstractmethod
    def sample(self, difficulty: int, batch: int, random: torch.Generator) -> Episode:
        """Fresh episodes."""


_SYNTHESIZERS: dict[str, dict[str, Any]] = {
    "critic": {"dni_network": Critic_DNI},
    "traces": {"dni_network": Linear_DNI, "dni_params": {"num_layers": 0, "norm": None}},
}


class Net(nn.Module):
    """A recurrent layer and a linear head.

    Shape:
        ``(time, batch, input_size)`` to ``(time, batch, output_size)`` and the state.
    """

    def __init__(self, task: EpisodeTask, args: argparse.Namespace) -> None:
        super().__init__()
        self.core = CELLS[args.cell](task.input_size, args.hidden)
        self.head = nn.Linear(args.hidden, task.output_size)
        if args.cell == "lstm":
            hidden = slice(args.hidden, 2 * args.hidden)
            with torch.no_grad():
                self.core.bias_ih_l0[hidden] = args.forget_bias
                self.core.bias_hh_l0[hidden] = 0.0

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits at each step, and the last state."""
        output, state = self.core(input, state)
        return self.head(output), state


class Run:
    """One mode, one seed."""

    def __init__(self, mode: str, seed: int, task: EpisodeTask, args: argparse.Namespace) -> None:
        self.mode, self.seed = mode, seed
        self.difficulty, self.updates, self.seconds = task.start, 0, 0.0
        self.history: list[tuple[int, float, int]] = [(0, 0.0, task.start)]
        self._task, self._args = task, args
        self._window = {"bptt4": 4 * args.window, "full": 10**9}.get(mode, args.window)
        torch.manual_seed(seed_of(seed, -1))
        self._random = torch.Generator().manual_seed(seed_of(seed, 0))
        bare = Net(task, args)
        self._optimizer = torch.optim.Adam(bare.parameters(), lr=args.lr)
        self.net: nn.Module = bare
        self._looks = args.window * (task.output_size + 1)
        if mode in _DNI:
            self.net = DNI(
                bare,
                self._optimizer,
                context_size=self._looks if mode == "cdni" else None,
                hidden_size=args.synthesizer_hidden,
                future=FutureGradient(
                    factor=args.factor,
                    bound=args.bound,
                    target=mode if mode in ("returns", "traces") else "bootstrap",
                    lambda_=args.lambda_,
                    auxiliary=args.auxiliary if mode == "auxiliary" else 0.0,
                ),
                grad_lr=args.grad_lr,
                **_SYNTHESIZERS.get(mode, {}),
            )
        self._episode: Episode | None = None
        self._place, self._state = 0, None
        self._bits, self._asked = 0.0, 0
        self.error, self._episodes = 1.0, 0

    def update(self) -> None:
        """Learn from one window."""
        if self._episode is None:
            self._begin()
        episode = self._episode
        assert episode is not None
        length = len(episode.input)
        # The first window is of random length, so that the ends of windows meet all steps alike.
        first = int(torch.randint(min(self._window, length), (), generator=self._random)) + 1
        whole = self._place or self.mode == "full"
        end = min(self._place + (self._window if whole else first), length)
        part = slice(self._place, end)
        start = time.perf_counter()
        context = self._context(end) if self.mode == "cdni" else None
        with synthesizer_context(context):
            output, state = self.net(episode.input[part], self._state)
        due = episode.due[part]
        losses = F.binary_cross_entropy_with_logits(output, episode.target[part], reduction="none")
        # Of each sample; their sum is the mean over the batch.
        losses = (losses.mean(2) * due.unsqueeze(1)).sum(0) / output.shape[1]
        loss = losses.sum()
        if self.mode == "critic":
            self.net.observe(losses)
        self._optimizer.zero_grad()
        loss.backward()
        if self._args.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self._args.clip)
        self._optimizer.step()
        self.seconds += time.perf_counter() - start
        self.updates += 1
        self._bits += loss.item() / math.log(2)
        self._asked += int(due.sum())
        self._place = end
        self._state = detached(state)
        if end == length:
            self._finish()

    def _begin(self) -> None:
        self._episode = self._task.sample(self.difficulty, self._args.batch, self._random)
        self._place, self._state, self._bits, self._asked = 0, None, 0.0, 0

    def _context(self, end: int) -> Tensor:
        """What will be asked for in the next window."""
        assert self._episode is not None
        batch = self._episode.input.shape[1]
        coming = slice(end, end + self._args.window)
        due = self._episode.due[coming].view(-1, 1, 1).expand(-1, batch, 1)
        known = torch.cat([self._episode.target[coming] * due, due], 2)
        known = F.pad(known, (0, 0, 0, 0, 0, self._args.window - len(known)))
        return known.transpose(0, 1).flatten(1)

    def _finish(self) -> None:
        self._episode = None
        self._episodes += 1
        error = self._bits / max(self._asked, 1)
        weight = max(1 - _DECAY, 1 / self._episodes)
        self.error += weight * (error - self.error)
        if self._episodes >= _PATIENCE and self.error < _ENOUGH:
            self.difficulty += 1
            self.history.append((self.updates, self.seconds, self.difficulty))
            self.error, self._episodes = 1.0, 0

    def row(self) -> dict[str, Any]:
        """The figures that are kept."""
        return {
            "mode": self.mode,
            "seed": self.seed,
            "solved": self.difficulty - 1,
            "error": self.error,
            "updates": self.updates,
            "seconds": self.seconds,
            "history": self.history,
        }
