"""Step time of learned feedback, in the wrapper and by hand, over that of backpropagation.

The column ``operators`` counts the operators of PyTorch in a step. By default, only the fastest
hand-written loop is measured. This prints all of them::

    from benchmarks import feedback

    print(feedback.run("cpu", variants=feedback.VARIANTS)[0])
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from pytorch_dni import DNI

from .calls import OperatorCounter
from .feedback_by_hand import BATCH, by_hand, CLASSES, INPUTS, mlp, WAYS
from .feedback_matrices import MATRICES
from .report import markdown_table
from .timing import time_steps

NETWORKS = ((3, 256), (6, 512), (6, 1024))
_LEARNING_RATE = 1e-5  # small, so that random labels are not learned while times are measured
_EVERY = 4
_SAMPLED = 8  # DNI computes the figures of stats() in one step of eight

#: The variants of the loops: how backward passes run, and how products are computed.
VARIANTS = (*((way, "each") for way in WAYS), *((WAYS[-1], name) for name in [*MATRICES][1:]))
FASTEST = (("cut nodes", "each"),)


def training_steps(
    depth: int,
    width: int,
    batch_norm: bool,
    device: str,
    fused: bool = True,
    variants: Sequence[tuple[str, str]] = FASTEST,
) -> dict[str, Callable[[], None]]:
    """Return four training steps, as one call, of backpropagation, the wrapper and each loop.

    Args:
        depth: Number of hidden layers.
        width: Their width.
        batch_norm: Whether they have a batch norm.
        device: Where the network is trained.
        fused: Whether the network's Adam is fused; otherwise PyTorch chooses.
        variants: The hand-written loops, some of :data:`VARIANTS`.
    """
    torch.manual_seed(0)
    original = mlp(depth, width, batch_norm).to(device)
    x = torch.randn(BATCH, INPUTS, device=device)
    y = torch.randint(0, CLASSES, (BATCH,), device=device)

    def loop_step(every: int, way: str, matrices: str) -> Callable[[], None]:
        network = copy.deepcopy(original)
        loop = by_hand(network, _adam(network, fused), every, way, matrices)
        return lambda: _repeat(lambda: loop.step(x, y))

    optimizer = _adam(original, fused)

    def backpropagation_step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(original(x), y).backward()
        optimizer.step()

    steps = {"backpropagation": lambda: _repeat(backpropagation_step)}
    for every in (1, _EVERY, 2 * _EVERY):
        steps[f"DNI, exact_every={every}"] = _dni_step(original, every, fused, x, y)
    for every in (1, _EVERY):
        for way, matrices in variants:
            steps[f"every {every}, {way}, {matrices}"] = loop_step(every, way, matrices)
    return steps


def _dni_step(
    original: nn.Module, every: int, fused: bool, x: Tensor, y: Tensor
) -> Callable[[], None]:
    """Return the training steps of the library's wrapper, as one call."""
    network = copy.deepcopy(original)
    optimizer = _adam(network, fused)
    wrapped = DNI(network, optimizer, exact_every=every)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(wrapped(x), y).backward()
        optimizer.step()

    return lambda: _repeat(step)


def _repeat(step: Callable[[], None]) -> None:
    for _ in range(_EVERY):
        step()


def _adam(network: nn.Module, fused: bool) -> Optimizer:
    return torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE, fused=fused or None)


def run(
    device: str,
    networks: Sequence[tuple[int, int]] = NETWORKS,
    blocks: int = 15,
    fused: bool = True,
    variants: Sequence[tuple[str, str]] = FASTEST,
) -> tuple[str, list[dict[str, Any]]]:
    """Time all networks with the current number of threads and, on the CPU, with one.

    Args:
        device: Where the networks are trained.
        networks: Depths and widths.
        blocks: Number of blocks of steps that are measured.
        fused: Whether the networks' Adam is fused.
        variants: The hand-written loops, some of :data:`VARIANTS`.

    Returns:
        A table and its figures.
    """
    figures: list[dict[str, Any]] = []
    current_threads = torch.get_num_threads()
    counts = dict.fromkeys((current_threads, 1)) if device == "cpu" else (current_threads,)
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            for depth, width in networks:
                for batch_norm in (True, False):
                    steps = training_steps(depth, width, batch_norm, device, fused, variants)
                    norm = "batch" if batch_norm else "-"
                    network = {"network": f"{depth} x {width}", "norm": norm, "threads": threads}
                    figures += [network | figure for figure in _measure(steps, blocks)]
    finally:
        torch.set_num_threads(current_threads)
    return _table(figures), figures


def _measure(steps: dict[str, Callable[[], None]], blocks: int) -> list[dict[str, Any]]:
    """Return times and operators of training steps, for one step of each."""
    figures = []
    for name, t in time_steps(steps, blocks, length=2, warm_up=1).items():
        figure = {"loop": name, **t._asdict(), "milliseconds": t.milliseconds / _EVERY}
        with OperatorCounter() as counter:
            for _ in range(_SAMPLED // _EVERY):
                steps[name]()
        figures.append({**figure, "operators": counter.count / _SAMPLED})
    return figures


def _table(figures: list[dict[str, Any]]) -> str:
    labels = ["network", "norm", "threads", "loop"]
    header = [*labels, "ms / step", "over backpropagation", "range", "operators"]
    rows = [
        [
            *(str(f[label]) for label in labels),
            f"{f['milliseconds']:.2f}",
            f"{f['ratio']:.2f}",
            f"{f['low']:.2f} to {f['high']:.2f}",
            f"{f['operators']:.0f}",
        ]
        for f in figures
    ]
    return markdown_table(header, rows)
