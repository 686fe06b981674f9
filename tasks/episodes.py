"""Training of a recurrent network on windows of episodes, which get longer by a curriculum."""

from __future__ import annotations

import argparse
import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni import Critic_DNI, FutureGradient, Linear_DNI, synthesizer_context

from .cells import CELLS
from .plots import HistoryEntry
from .window_training import WindowRun

MODES = {
    "bp": "backpropagation through time, truncated at the ends of windows",
    "bp4": "the same on windows four times as long",
    "bp-full": "backpropagation through whole episodes",
    "dni": "synthetic gradients of the state at the end of a window",
    "cdni": "dni with the targets of the next window as context",
    "returns": "dni with lambda-returns as targets of the synthesizer",
    "traces": "dni with eligibility traces and a linear synthesizer",
    "auxiliary": "dni with the auxiliary task",
    "critic": "the gradient of a critic's prediction of later losses",
}
#: Modes whose synthesizers learn from recorded windows, which no checkpoint holds.
WITH_RECORDED_WINDOWS = ("returns", "traces")
_MODES_WITHOUT_DNI = ("bp", "bp4", "bp-full")
_MODE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "critic": {"dni_network": Critic_DNI},
    "traces": {"dni_network": Linear_DNI, "dni_params": {"num_layers": 0, "norm": None}},
}

# The curriculum raises the difficulty when the running mean of the error is small enough.
MAX_ERROR = 0.15  # bits of error for each requested bit
_MIN_EPISODES = 20  # at each difficulty
_ERROR_DECAY = 0.9  # of the running mean over episodes


class Episode(NamedTuple):
    """Sequences of one length.

    Attributes:
        input: ``(length, batch, input_size)``.
        target: Bits, ``(length, batch, output_size)``.
        mask: 1 at the steps that ask for the target, else 0: ``(length,)``.
    """

    input: Tensor
    target: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Episode:
        """Return the sequences on a device."""
        return Episode(*(tensor.to(device) for tensor in self))


class EpisodeTask(ABC):
    """A task that makes episodes of any difficulty; subclasses set the attributes.

    Attributes:
        input_size: Number of input features at each step.
        output_size: Number of output bits at each step.
        initial_difficulty: Difficulty of the first episodes.
    """

    input_size: int
    output_size: int
    initial_difficulty: int

    @abstractmethod
    def sample(self, difficulty: int, batch: int, random: torch.Generator) -> Episode:
        """Return new random episodes."""


class EpisodeNetwork(nn.Module):
    """A recurrent layer and a linear layer.

    Shape:
        Maps ``(time, batch, input_size)`` and a state to ``(time, batch, output_size)`` and the
        last state.
    """

    def __init__(self, task: EpisodeTask, args: argparse.Namespace) -> None:
        super().__init__()
        self.core = CELLS[args.cell](task.input_size, args.hidden)
        self.head = nn.Linear(args.hidden, task.output_size)
        if args.cell == "lstm":
            forget_gate = slice(args.hidden, 2 * args.hidden)
            with torch.no_grad():
                self.core.bias_ih_l0[forget_gate] = args.forget_bias
                self.core.bias_hh_l0[forget_gate] = 0.0

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the logits at each step and the last state."""
        output, state = self.core(input, state)
        return self.head(output), state


class EpisodeRun(WindowRun):
    """Training of one network on episodes, with one mode and one seed.

    The entries of its history are the difficulties and when they were reached.

    Attributes:
        difficulty: Difficulty of the current episodes.
        error: Running mean of the error at this difficulty, in bits for each requested bit.
    """

    def __init__(self, mode: str, seed: int, task: EpisodeTask, args: argparse.Namespace) -> None:
        self._task = task
        self._context_size = args.window * (task.output_size + 1)
        dni_arguments = None if mode in _MODES_WITHOUT_DNI else self._dni_arguments(mode, args)
        super().__init__(mode, seed, args, lambda: EpisodeNetwork(task, args), dni_arguments)
        self.difficulty = task.initial_difficulty
        self.history.append(HistoryEntry(0, 0.0, self.difficulty))
        self._episode: Episode | None = None
        self._episode_bits, self._requested_steps = 0.0, 0
        self.error, self._finished_episodes = 1.0, 0

    def _dni_arguments(self, mode: str, args: argparse.Namespace) -> dict[str, Any]:
        future = FutureGradient(
            factor=args.factor,
            bound=args.bound,
            target=mode if mode in ("returns", "traces") else "bootstrap",
            lambda_=args.lambda_,
            auxiliary=args.auxiliary if mode == "auxiliary" else 0.0,
        )
        context_size = self._context_size if mode == "cdni" else None
        return {"future": future, "context_size": context_size, **_MODE_ARGUMENTS.get(mode, {})}

    def _next_end(self) -> int:
        if self._episode is None:
            self._start_episode()
        assert self._episode is not None
        length = len(self._episode.input)
        size = length if self.window is None else min(self.window, length)
        # The first window of an episode has a random length, so that every step of the episodes is
        # equally often the last one of a window.
        random_size = int(torch.randint(size, (), generator=self._random)) + 1
        if self._position == 0 and self.window is not None:
            size = random_size
        return min(self._position + size, length)

    def _start_episode(self) -> None:
        episode = self._task.sample(self.difficulty, self._args.batch, self._random)
        self._episode = episode.to(self._args.device)
        self._position, self._state = 0, None
        self._episode_bits, self._requested_steps = 0.0, 0

    def _forward(self, window: slice) -> tuple[Tensor, Any]:
        assert self._episode is not None
        context = self._next_targets(window.stop) if self.mode == "cdni" else None
        with synthesizer_context(context):
            output, state = self.model(self._episode.input[window], self._state)
        target, mask = self._episode.target[window], self._episode.mask[window]
        bit_losses = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        # One loss for each sample; the sum of all is the mean over the batch.
        losses = (bit_losses.mean(2) * mask.unsqueeze(1)).sum(0) / output.shape[1]
        if self.mode == "critic":
            self.model.observe(losses)
        return losses.sum(), state

    def _next_targets(self, start: int) -> Tensor:
        """Return targets and mask of the window from ``start`` on: ``(batch, context_size)``."""
        assert self._episode is not None
        batch = self._episode.input.shape[1]
        window = slice(start, start + self._args.window)
        mask = self._episode.mask[window].view(-1, 1, 1).expand(-1, batch, 1)
        targets = torch.cat([self._episode.target[window] * mask, mask], 2)
        padded = F.pad(targets, (0, 0, 0, 0, 0, self._args.window - len(targets)))
        return padded.transpose(0, 1).flatten(1)

    def _after_step(self, window: slice, loss: Tensor) -> None:
        assert self._episode is not None
        self._episode_bits += loss.item() / math.log(2)
        self._requested_steps += int(self._episode.mask[window].sum())
        if window.stop == len(self._episode.input):
            self._finish_episode()

    def _finish_episode(self) -> None:
        self._episode = None
        self._finished_episodes += 1
        error = self._episode_bits / max(self._requested_steps, 1)
        weight = max(1 - _ERROR_DECAY, 1 / self._finished_episodes)
        self.error += weight * (error - self.error)
        if self._finished_episodes >= _MIN_EPISODES and self.error < MAX_ERROR:
            self.difficulty += 1
            self.history.append(HistoryEntry(self.steps, self.seconds, self.difficulty))
            self.error, self._finished_episodes = 1.0, 0

    def progress(self) -> str:
        """Return difficulty and error for the progress bar."""
        return f"difficulty {self.difficulty}, error {self.error:.2f} bits"

    def example_input(self) -> Tensor:
        """Return the input of a window of the first difficulty, on the device."""
        random = torch.Generator().manual_seed(0)
        episode = self._task.sample(self._task.initial_difficulty, self._args.batch, random)
        return episode.input[: self.window].to(self._args.device)

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue the training, as plain data and tensors."""
        return {
            **super().state_dict(),
            "difficulty": self.difficulty,
            "error": self.error,
            "finished_episodes": self._finished_episodes,
            "episode": None if self._episode is None else tuple(self._episode),
            "episode_bits": self._episode_bits,
            "requested_steps": self._requested_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the training of a saved state."""
        super().load_state_dict(state)
        self.difficulty, self.error = state["difficulty"], state["error"]
        self._finished_episodes = state["finished_episodes"]
        episode = self._on_device(state["episode"])
        self._episode = None if episode is None else Episode(*episode)
        self._episode_bits = state["episode_bits"]
        self._requested_steps = state["requested_steps"]

    def result(self) -> dict[str, Any]:
        """Return the figures of the run as plain data."""
        return {**super().result(), "solved": self.difficulty - 1, "error": self.error}
