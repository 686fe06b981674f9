"""Training of one network, with one mode and one seed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn, Tensor
from torch.optim.lr_scheduler import LambdaLR

from .modes import Configuration
from .task import Batch, step_seed, Task
from .timing import synchronize


class TrainingRun:
    """Training of one network, with one mode and one seed.

    Args:
        configuration: How the network is trained.
        seed: Determines the random numbers of the training steps.
        network: The network, on the device.
        task: What it is trained on.
        decay_steps: Number of steps in which the learning rate falls to zero, along half a period
            of a cosine; None for a constant learning rate.

    Attributes:
        model: The network, wrapped as its mode needs it.
        block_times: Median step time in seconds of each block of steps; None for a warm-up block.
    """

    def __init__(
        self,
        configuration: Configuration,
        seed: int,
        network: nn.Module,
        task: Task,
        decay_steps: int | None = None,
    ) -> None:
        self.configuration = configuration
        self.seed = seed
        self.block_times: list[float | None] = []
        self._task = task
        self._optimizer = torch.optim.Adam(network.parameters(), lr=configuration.lr)
        self._schedule = LambdaLR(self._optimizer, learning_rate_factor(decay_steps))
        self.model = configuration.wrap(network, self._optimizer, task)
        self._losses: list[Tensor] = []
        self._last: tuple[Tensor, Batch] | None = None  # output of the last step, and its batch
        self._last_loss: Tensor | None = None

    def train_block(self, first_step: int, batches: Sequence[Batch], warm_up: bool) -> None:
        """Train on the batches of consecutive steps; keep the median step time.

        Args:
            first_step: Number of the first step.
            batches: One batch for each step, on the device.
            warm_up: Whether the step times are ignored.
        """
        times = []
        for step, batch in enumerate(batches, first_step):
            # All modes use the same random numbers in a step, and so does a resumed run.
            torch.manual_seed(step_seed(self.seed, step))
            times.append(self._train_step(batch))
        self.block_times.append(None if warm_up else statistics.median(times))

    def _train_step(self, batch: Batch) -> float:
        """Train on a batch; return the step time in seconds."""
        device = batch.input.device
        synchronize(device)
        start = time.perf_counter()
        self._optimizer.zero_grad()
        with self.configuration.context(batch):
            output = self.model(batch.input)
        loss = self._task.loss(output, batch.target)
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        synchronize(device)
        seconds = time.perf_counter() - start
        self._last_loss = loss.detach()
        self._losses.append(self._last_loss)
        self._last = output.detach(), batch
        return seconds

    def evaluate(self) -> dict[str, Any]:
        """Return the figures of the run as plain data.

        The training loss is the mean since the last evaluation; test loss and test error are means
        over the test data; the step time is that of the last block.
        """
        test_loss, test_error = self._test()
        times = [seconds for seconds in self.block_times if seconds is not None]
        training_loss = torch.stack(self._losses).mean().item()
        self._losses = []
        return {
            "label": self.configuration.label,
            "mode": self.configuration.mode,
            "synthesizer": self.configuration.variant,
            "seed": self.seed,
            "lr": self.configuration.lr,
            "training_loss": training_loss,
            "test_loss": test_loss,
            "test_error": test_error,
            "cosine": self._cosine(),
            "step_ms": 1e3 * times[-1] if times else None,
        }

    def _test(self) -> tuple[float, float]:
        """Return the mean loss and the mean error on the test data."""
        self.model.eval()
        sums, count = torch.zeros(2, dtype=torch.float64), 0
        with torch.no_grad():
            for batch in self._task.test_batches():
                output = self.model(batch.input)
                loss = self._task.loss(output, batch.target)
                error = self._task.error(output, batch)
                sums += torch.stack((loss, error)).double().cpu() * len(batch.input)
                count += len(batch.input)
        self.model.train()
        mean_loss, mean_error = (sums / count).tolist()
        return mean_loss, mean_error

    def _cosine(self) -> float | None:
        """Return the mean cosine similarity of synthetic and true gradients, None if unknown."""
        if self.configuration.mode == "bp":
            return None
        cosines = [stats.cosine for stats in self.model.stats().values()]
        known = [cosine for cosine in cosines if cosine == cosine]  # NaN: nothing measured yet
        return sum(known) / len(known) if known else None

    def progress(self) -> str:
        """Return the figures of the last training step for the progress bar."""
        assert self._last is not None
        loss, error = self._losses[-1].item(), 100 * self._task.error(*self._last).item()
        cosine = self._cosine()
        text = f"{self.configuration.label}: loss {loss:.4f}, error {error:.1f} %"
        return text if cosine is None else f"{text}, cosine {cosine:.2f}"

    def last_loss(self) -> float | None:
        """Return the loss of the last training step; None before the first one."""
        return None if self._last_loss is None else self._last_loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue the training, as plain data and tensors."""
        return {
            "seed": self.seed,
            "label": self.configuration.label,
            "net": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self._schedule.last_epoch,
            "block_times": self.block_times,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the training of a saved state."""
        self.model.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.last_epoch = state["steps"]
        self.block_times = list(state["block_times"])


def learning_rate_factor(decay_steps: int | None) -> Callable[[int], float]:
    """Return the function from the number of steps taken to the factor of the learning rate.

    Args:
        decay_steps: Number of steps in which the factor falls from 1 to 0, along half a period of a
            cosine; None for a factor of 1.
    """
    if decay_steps is None:
        return lambda step: 1.0
    return lambda step: (1 + math.cos(math.pi * min(step / decay_steps, 1))) / 2
