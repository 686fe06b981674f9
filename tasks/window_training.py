"""Training of a recurrent network window by window, as all programs on windows do it."""

from __future__ import annotations

import argparse
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn, Tensor

from pytorch_dni import DNI

from . import live_table
from .cells import detach_state
from .plots import HistoryEntry
from .progress import Progress
from .task import step_seed
from .timing import synchronize


class WindowRun(ABC):
    """Training of one network with one mode and one seed.

    Args:
        mode: ``"bp4"`` has windows four times as long, ``"bp-full"`` trains on whole sequences.
        seed: Determines weights and data.
        args: Options of the program.
        build_network: Makes the network on the CPU; its forward pass takes and returns a state.
        dni_arguments: Arguments of ``DNI``; None trains the network without it.

    Attributes:
        network: The network, on the device.
        model: The network, wrapped in ``DNI`` if its mode needs it.
        window: Number of time steps in a window; None for whole sequences.
        steps: Number of training steps: windows that the network was trained on.
        seconds: Time that they took.
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
        self.window: int | None = {"bp4": 4 * args.window, "bp-full": None}.get(mode, args.window)
        self.steps, self.seconds = 0, 0.0
        self.history: list[HistoryEntry] = []
        self._args = args
        torch.manual_seed(step_seed(seed, -1))
        self._random = torch.Generator().manual_seed(step_seed(seed, 0))
        self._build_network = build_network
        self.network = build_network().to(args.device)
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
        self._last_loss: Tensor | None = None

    def train_step(self) -> None:
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
        self.steps += 1
        self._position, self._state = end, detach_state(state)
        self._last_loss = loss.detach()
        self._after_step(window, loss)

    @abstractmethod
    def _next_end(self) -> int:
        """Return the position at which the next window ends.

        Start a new sequence, at position 0 and without a state, if the last one has ended.
        """

    @abstractmethod
    def _forward(self, window: slice) -> tuple[Tensor, Any]:
        """Return the loss of a window of the sequence, and the last state."""

    def _after_step(self, window: slice, loss: Tensor) -> None:  # noqa: B027
        """Keep what a subclass needs to know about a training step."""

    @abstractmethod
    def example_input(self) -> Tensor:
        """Return the input of a window, on the device."""

    @abstractmethod
    def progress(self) -> str:
        """Return the current result for the progress bar."""

    def last_loss(self) -> float | None:
        """Return the loss of the last window; None before the first one."""
        return None if self._last_loss is None else self._last_loss.item()

    def diverged(self) -> bool:
        """Return whether the loss is not finite any more."""
        loss = self.last_loss()
        return loss is not None and not math.isfinite(loss)

    def new_network(self) -> nn.Module:
        """Return a network like the one that is trained, on the device."""
        with torch.random.fork_rng(devices=[]):
            return self._build_network().to(self._args.device)

    def result(self) -> dict[str, Any]:
        """Return the figures of the run as plain data."""
        return {
            "mode": self.mode,
            "seed": self.seed,
            "steps": self.steps,
            "seconds": self.seconds,
            "history": self.history,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue the training, as plain data and tensors."""
        return {
            "net": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": self._random.get_state(),
            "position": self._position,
            "state": self._state,
            "steps": self.steps,
            "seconds": self.seconds,
            "history": [[*entry] for entry in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the training of a saved state."""
        self.model.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._random.set_state(state["random"])
        self._position, self._state = state["position"], self._on_device(state["state"])
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.history = [HistoryEntry(*entry) for entry in state["history"]]

    def _on_device(self, tensors: Any) -> Any:
        """Return a tensor, or a tuple of tensors, on the device; None stays None."""
        if isinstance(tensors, tuple):
            return tuple(tensor.to(self._args.device) for tensor in tensors)
        return None if tensors is None else tensors.to(self._args.device)


_Run = TypeVar("_Run", bound=WindowRun)


class Length(NamedTuple):
    """How long each run is trained; one of the attributes is None.

    Attributes:
        steps: Number of training steps.
        seconds: Training time in seconds.
    """

    steps: int | None
    seconds: float | None

    @property
    def total(self) -> float:
        """The number of steps, or of seconds."""
        given = self.seconds if self.steps is None else self.steps
        assert given is not None
        return given

    def done(self, run: WindowRun) -> float:
        """Return how many of them a run has been trained."""
        return min(run.seconds if self.steps is None else run.steps, self.total)


def train_in_turn(
    runs: Sequence[_Run],
    length: Length,
    steps_per_block: int,
    after_step: Callable[[_Run], None],
    after_block: Callable[[], None],
    live: bool = False,
) -> None:
    """Train all runs in turn, a block of steps each.

    So changes in the speed of the machine affect all runs alike.

    Args:
        runs: The runs.
        length: How long each is trained.
        steps_per_block: Number of steps in a block.
        after_step: Called with a run after each of its steps.
        after_block: Called when all runs have been trained on a block.
        live: Whether a table of ``stats()`` is shown on a terminal.
    """
    unfinished = [run for run in runs if length.done(run) < length.total]
    done = sum(length.done(run) for run in runs) / len(runs)
    unit = "s" if length.steps is None else "step"
    rows = (lambda: _live_rows(runs)) if live else None
    with Progress(length.total, done, len(runs), unit, rows=rows) as progress:
        while unfinished:
            for run in unfinished:
                before = length.done(run)
                for _ in range(steps_per_block):
                    if length.done(run) >= length.total:
                        break
                    run.train_step()
                    after_step(run)
                progress.advance(length.done(run) - before)
                progress.show(f"{run.mode}: {run.progress()}")
            progress.block_ended()
            unfinished = [run for run in unfinished if length.done(run) < length.total]
            after_block()


def _live_rows(runs: Sequence[WindowRun]) -> list[Sequence[str]]:
    first = [run for run in runs if run.seed == runs[0].seed]
    return live_table.rows(
        live_table.Trained(run.mode, run.last_loss(), run.model) for run in first
    )


def by_mode(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """Return the runs of each mode, in the order of the modes."""
    groups: dict[str, list[_Run]] = {}
    for run in runs:
        groups.setdefault(run.mode, []).append(run)
    return groups


def milliseconds_per_step(runs: Sequence[WindowRun]) -> str:
    """Return the mean time of a training step as text."""
    seconds, steps = sum(run.seconds for run in runs), sum(run.steps for run in runs)
    return f"{1e3 * seconds / steps:.2f}"
