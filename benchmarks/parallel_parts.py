"""Step time when the backward passes of the parts run on two threads at a time.

The network is trained with learned feedback, and only steps without exact gradients are measured:
once the error is known, no part waits for another one.

On two cores it does not pay, so the library has no option for it: over one thread, two parts at a
time took 0.80 to 1.05 of the time, two threads inside operators 0.66 to 0.78, and both 0.67 to 0.97
(three networks, AMD EPYC, torch 2.13.0).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from .feedback_by_hand import BATCH, CLASSES, ExactEveryByHand, INPUTS, mlp
from .feedback_matrices import MATRICES, Matrices
from .report import markdown_table
from .timing import time_steps

_THREADS = 2
_NEVER_AGAIN = 10**9  # only the first step computes exact gradients, and it is not measured


class ParallelParts(ExactEveryByHand):
    """Runs the backward passes of the parts on a pool of threads, each with one thread inside.

    PyTorch runs a backward pass on the CPU in the thread that calls it, and holds no lock while it
    runs.

    Args:
        parts: The parts of the network in order; the last one computes the logits.
        optimizer: Optimizer of the network.
        matrices: One matrix for each part but the last.
        every: Steps from one that learns to the next.
        pool: The threads.
    """

    def __init__(
        self,
        parts: Sequence[nn.Module],
        optimizer: Optimizer,
        matrices: Matrices,
        every: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        super().__init__(parts, optimizer, matrices, "passes", every)
        self._pool = pool

    def _run_backward_passes(self, outputs: list[Tensor]) -> None:
        # Consumed, since an error in a thread is raised only where its result is asked for.
        [*self._pool.map(self._run_backward_pass, range(len(outputs)), outputs)]

    def _run_backward_pass(self, cut: int, output: Tensor) -> None:
        output.backward(self.matrices.predict(cut))


class PartedNetwork:
    """A network in parts, and a batch of random data.

    Args:
        parts: The parts in order; the last one computes the logits.
        shape: Shape of a batch.
    """

    def __init__(self, parts: Sequence[nn.Module], shape: tuple[int, ...]) -> None:
        self.parts = nn.ModuleList(parts)
        self.x, self.y = torch.randn(shape), torch.randint(0, CLASSES, (shape[0],))
        self.shapes = []
        x = self.x
        with torch.no_grad():
            for part in parts[:-1]:
                x = part(x)
                self.shapes.append(tuple(x.shape[1:]))

    def training_step(self, threads: int, pool: ThreadPoolExecutor | None) -> Callable[[], None]:
        """Return a step of a new copy of the network.

        Args:
            threads: Number of threads inside the operators of the calling thread.
            pool: Threads for the backward passes; None runs them in the calling thread.
        """
        parts = [*copy.deepcopy(self.parts)]
        parameters = [p for part in parts for p in part.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=1e-5, fused=True)
        matrices = MATRICES["each"](self.shapes, CLASSES, self.x)
        if pool is None:
            loop = ExactEveryByHand(parts, optimizer, matrices, "passes", _NEVER_AGAIN)
        else:
            loop = ParallelParts(parts, optimizer, matrices, _NEVER_AGAIN, pool)
        loop.step(self.x, self.y)

        def step() -> None:
            torch.set_num_threads(threads)
            loop.step(self.x, self.y)

        return step

    def backpropagation_step(self, threads: int) -> Callable[[], None]:
        """Return a step of backpropagation of a new copy of the network."""
        network = nn.Sequential(*copy.deepcopy(self.parts))
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=True)

        def step() -> None:
            torch.set_num_threads(threads)
            optimizer.zero_grad()
            F.cross_entropy(network(self.x), self.y).backward()
            optimizer.step()

        return step


def mlp_network(width: int) -> PartedNetwork:
    """Return a fully connected network of six hidden layers."""
    return PartedNetwork([*mlp(6, width, batch_norm=True)], (BATCH, INPUTS))


def cnn_network() -> PartedNetwork:
    """Return a network of four convolutions, each with batch norm and ReLU, and a linear layer."""
    parts: list[nn.Module] = []
    for before, after, stride in ((3, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
        convolution = nn.Conv2d(before, after, 3, stride, 1)
        parts.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU()))
    head = nn.Sequential(nn.Flatten(), nn.Linear(64 * 8 * 8, CLASSES))
    return PartedNetwork([*parts, head], (64, 3, 16, 16))


NETWORKS: dict[str, Callable[[], PartedNetwork]] = {
    "MLP, 6 x 256": lambda: mlp_network(256),
    "MLP, 6 x 1024": lambda: mlp_network(1024),
    "CNN, 4 convolutions, 16 x 16, batch 64": cnn_network,
}


def run(device: str, blocks: int = 25) -> tuple[str, list[dict[str, Any]]]:
    """Time the steps on the CPU, with one and with two threads.

    Args:
        device: Not used: the threads are those of the CPU.
        blocks: Number of blocks of steps that are measured.

    Returns:
        A table and its figures; ratios are relative to one thread.
    """
    rows, figures = [], []
    current_threads = torch.get_num_threads()
    with ThreadPoolExecutor(_THREADS, initializer=lambda: torch.set_num_threads(1)) as pool:
        try:
            for name, build in NETWORKS.items():
                torch.manual_seed(0)
                network = build()
                steps = {
                    "one thread": network.training_step(1, None),
                    "two threads in operators": network.training_step(_THREADS, None),
                    "two parts at a time": network.training_step(1, pool),
                    "both": network.training_step(_THREADS, pool),
                    "backpropagation, one thread": network.backpropagation_step(1),
                    "backpropagation, two threads": network.backpropagation_step(_THREADS),
                }
                for method, t in time_steps(steps, blocks, length=5, warm_up=1).items():
                    times = [f"{t.milliseconds:.2f}", f"{t.ratio:.2f}", t.range]
                    rows.append([name, method, *times])
                    figures.append({"network": name, "method": method, **t._asdict()})
        finally:
            torch.set_num_threads(current_threads)
    header = ["network", "method", "ms / step", "over one thread", "range"]
    return markdown_table(header, rows), figures
