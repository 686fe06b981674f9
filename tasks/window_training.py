"""Training of a recurrent network window by window, as all programs on windows do it."""

from __future__ import annotations

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn, Tensor
from tqdm import tqdm

from pytorch_dni import DNI

from .cells import detach_state
from .plots import HistoryEntry
from .task import step_seed
from .timing import synchronize


class WindowRun(ABC):
    """Training of one network with one mode and one seed.

    Args:
        mode: ``"bptt4"`` has windows four times as long, ``"full"`` trains on whole sequences.
        seed: Determines weights and data.
        args: Options of the program.
        build_network: Makes the network, whose forward pass takes and returns a state.
        dni_arguments: Arguments of ``DNI``; None trains the network without it.

    Attributes:
        network: The network.
        model: The network, wrapped in ``DNI`` if its mode needs it.
        window: Number of steps in a window; None for whole sequences.
        updates: Number of windows that the network was trained on.
        seconds: Time that it took.
        history: Results during training.
    """

    def __init__(
        self,
        mode: str,
        seed: int,
        args: argparse.Namespace,
        build_network: Callable[[], nn.Module],
        dni_arguments: Mapping[str, Any] | None,
    ) -> None:
        self.mode, self.seed = mode, seed
        self.window: int | None = {"bptt4": 4 * args.window, "full": None}.get(mode, args.window)
        self.updates, self.seconds = 0, 0.0
        self.history: list[HistoryEntry] = []
        self._args = args
        torch.manual_seed(step_seed(seed, -1))
        self._random = torch.Generator().manual_seed(step_seed(seed, 0))
        self.network = build_network()
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=args.lr)
        self.model = self.network
        if dni_arguments is not None:
            self.model = DNI(
                self.network,
                self._optimizer,
                hidden_size=args.synthesizer_hidden,
                grad_lr=args.grad_lr,
                **dni_arguments,
            )
        self._position, self._state = 0, None

    def update(self) -> None:
        """Train on the next window."""
        end = self._next_end()
        window = slice(self._position, end)
        start = time.perf_counter()
        loss, state = self._forward(window)
        self._optimizer.zero_grad()
        loss.backward()
        if self._args.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._args.clip)
        self._optimizer.step()
        synchronize(loss.device)
        self.seconds += time.perf_counter() - start
        self.updates += 1
        self._position, self._state = end, detach_state(state)
        self._after_update(window, loss)

    @abstractmethod
    def _next_end(self) -> int:
        """Return the position at which the next window ends.

        Start a new sequence, at position 0 and without a state, if the last one has ended.
        """

    @abstractmethod
    def _forward(self, window: slice) -> tuple[Tensor, Any]:
        """Return the loss of a window of the sequence, and the last state."""

    def _after_update(self, window: slice, loss: Tensor) -> None:  # noqa: B027
        """Keep what a subclass needs to know about an update."""

    @abstractmethod
    def progress(self) -> str:
        """Return the current result for the progress bar."""

    def result(self) -> dict[str, Any]:
        """Return the figures of the run as plain data."""
        return {
            "mode": self.mode,
            "seed": self.seed,
            "updates": self.updates,
            "seconds": self.seconds,
            "history": self.history,
        }


_Run = TypeVar("_Run", bound=WindowRun)


def train_in_turn(
    runs: Sequence[_Run],
    args: argparse.Namespace,
    updates_per_block: int,
    after_update: Callable[[_Run], None] | None = None,
) -> None:
    """Train all runs for ``--seconds`` or ``--updates``.

    The runs are trained in turn, a block of updates each, so that changes in the speed of the
    machine affect them alike.
    """
    total = args.seconds or args.updates

    def done(run: _Run) -> float:
        return run.seconds if args.seconds else run.updates

    with tqdm(total=total * len(runs), unit="s" if args.seconds else "update") as bar:
        unfinished = list(runs)
        while unfinished:
            for run in unfinished:
                before = done(run)
                for _ in range(updates_per_block):
                    if done(run) >= total:
                        break
                    run.update()
                    if after_update is not None:
                        after_update(run)
                bar.update(min(done(run), total) - before)
                bar.set_postfix_str(f"{run.mode}: {run.progress()}")
            unfinished = [run for run in unfinished if done(run) < total]


def by_mode(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """Return the runs of each mode, in the order of the modes."""
    groups: dict[str, list[_Run]] = {}
    for run in runs:
        groups.setdefault(run.mode, []).append(run)
    return groups


def milliseconds_per_update(runs: Sequence[WindowRun]) -> str:
    """Return the mean time of an update as text."""
    seconds, updates = sum(run.seconds for run in runs), sum(run.updates for run in runs)
    return f"{1e3 * seconds / updates:.2f}"
