"""Recurrent nets on windows of long episodes: truncated backpropagation, and what looks further.

Episodes are longer than a window. A curriculum makes them longer still whenever the error has
become small; the largest length reached is the result.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from tqdm import tqdm

from pytorch_dni import Critic_DNI, DNI, DNIError, Future, synthesizer_context

from . import options, record
from .cells import CELLS, detached
from .options import TaskError
from .task import seed_of

#: Truncated backpropagation on windows, on windows four times as long, and through whole
#: episodes; synthetic gradients, the same with the targets of the next window as context, and the
#: gradient of a critic's prediction of the loss to come.
MODES = ("bptt", "bptt4", "full", "dni", "cdni", "critic")
_DNI = ("dni", "cdni", "critic")
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
                dni_network=Critic_DNI if mode == "critic" else None,
                context_size=self._looks if mode == "cdni" else None,
                hidden_size=args.synthesizer_hidden,
                future=Future(factor=args.factor, bound=args.bound),
                grad_lr=args.grad_lr,
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


def parser(task: str, description: str) -> options.Parser:
    """The options of all tasks on windows."""
    made = options.Parser(prog=f"python -m tasks.{task}", description=description)
    made.set_defaults(task=task)
    add = made.add_argument
    add("--mode", type=options.several(MODES), default=["bptt", "bptt4", "dni"], metavar="MODE,...",
        help=f"what to compare, of {', '.join(MODES)} (default: bptt,bptt4,dni)")  # fmt: skip
    add("--window", type=options.number(int, 1), default=3, metavar="T",
        help="steps of a window (default: %(default)s)")  # fmt: skip
    add("--updates", type=options.number(int, 1), default=3000,
        help="windows to learn from (default: %(default)s)")  # fmt: skip
    add("--seconds", type=options.number(float, 0, above=True),
        help="learn for so long instead, in each mode and seed")  # fmt: skip
    add("--seed", type=options.seeds, default=[1], metavar="SEED,...", help="default: 1")
    add("--cell", choices=[*CELLS], default="lstm", help="default: %(default)s")
    add("--hidden", type=options.number(int, 1), default=64,
        help="width of the recurrent layer (default: %(default)s)")  # fmt: skip
    add("--batch", type=options.number(int, 2), default=32,
        help="episodes at a time (default: %(default)s)")  # fmt: skip
    add("--lr", type=options.number(float, 0, above=True), default=3e-3,
        help="the network's learning rate (default: %(default)s)")  # fmt: skip
    add("--forget-bias", type=float, default=1.0,
        help="of the LSTM at the start (default: %(default)s)")  # fmt: skip
    add("--clip", type=options.number(float, 0), default=1.0,
        help="norm that gradients are clipped to, 0 for none (default: %(default)s)")  # fmt: skip
    add("--grad-lr", type=options.number(float, 0, above=True), default=3e-3,
        help="the synthesizers' learning rate (default: %(default)s)")  # fmt: skip
    add("--synthesizer-hidden", type=options.number(int, 1), default=128,
        help="width of the synthesizers (default: %(default)s)")  # fmt: skip
    add("--factor", type=options.number(float, 0), default=1.0,
        help="share of the synthetic gradient that is sent in (default: %(default)s)")  # fmt: skip
    add("--bound", type=options.number(float, 0, above=True), default=1.0,
        help="its length at most, in those of true ones (default: %(default)s)")  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="folder for results.jsonl and curves.png")
    return made


def main(
    made: options.Parser,
    make: Callable[[argparse.Namespace], EpisodeTask],
    argv: Sequence[str] | None,
) -> int:
    """Run a task from its command line; errors end it with one line and exit status 2."""
    try:
        args = made.parse_args(argv)
        if args.out is not None and any((args.out / name).exists() for name in (_ROWS, _CURVES)):
            raise TaskError(f"{args.out} holds a run already: give another --out")
        task = make(args)
        runs = [Run(mode, seed, task, args) for seed in args.seed for mode in args.mode]
        _train(runs, args)
        print(summary(runs, args))
        if args.out is not None:
            _save(args.out, runs, f"{args.task}, windows of {args.window}")
    except (TaskError, DNIError) as error:
        made.error(str(error))
    except OSError as error:
        made.error(f"cannot write to --out: {error.strerror}")
    except KeyboardInterrupt:
        return 130
    return 0


_TURN = 50


def _train(runs: Sequence[Run], args: argparse.Namespace) -> None:
    """In turns, so that all meet the same noise of the machine."""
    total = args.seconds if args.seconds else args.updates
    with tqdm(total=total * len(runs), unit="s" if args.seconds else "update") as bar:
        going = list(runs)
        while going:
            for run in going:
                before = run.seconds if args.seconds else run.updates
                for _ in range(_TURN):
                    if (run.seconds if args.seconds else run.updates) >= total:
                        break
                    run.update()
                bar.update(min(run.seconds if args.seconds else run.updates, total) - before)
                bar.set_postfix_str(f"{run.mode}: {run.difficulty}, {run.error:.2f} bits")
            going = [r for r in going if (r.seconds if args.seconds else r.updates) < total]


def summary(runs: Sequence[Run], args: argparse.Namespace) -> str:
    """A table with a line for each mode."""
    rows = [["mode", "window", "solved, median", "of seeds", "updates", "ms/update"]]
    for mode in dict.fromkeys(run.mode for run in runs):
        own = [run for run in runs if run.mode == mode]
        solved = sorted(run.difficulty - 1 for run in own)
        window = {"bptt4": 4 * args.window, "full": "all"}.get(mode, args.window)
        rows.append(
            [
                mode,
                str(window),
                f"{statistics.median(solved):g}",
                " ".join(map(str, solved)),
                f"{statistics.median(run.updates for run in own):g}",
                f"{1e3 * sum(r.seconds for r in own) / sum(r.updates for r in own):.2f}",
            ]
        )
    return record.table(rows)


_ROWS, _CURVES = "results.jsonl", "curves.png"


def _save(folder: Path, runs: Sequence[Run], title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(run.row()) + "\n" for run in runs)
    record.replace(folder / _ROWS, lines.encode())
    panels = []
    for place, label in enumerate(("updates", "seconds")):
        curves = []
        for run in runs:
            ends = [*run.history, (run.updates, run.seconds, run.difficulty)]
            curves.append((run.mode, [end[place] for end in ends], [end[2] - 1 for end in ends]))
        panels.append((label, curves))
    picture = record.steps_picture(panels, "largest length solved", title, steps=True)
    record.replace(folder / _CURVES, picture)
