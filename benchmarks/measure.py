"""Timing that noise cannot bend: contestants in turn, medians, ratios within one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Milliseconds a step, and the ratio to the first contestant: median, lowest, highest."""

    milliseconds: float
    ratio: float
    low: float
    high: float


def steps(
    contestants: Mapping[str, Callable[[], object]],
    blocks: int = 15,
    length: int = 20,
    warm_up: int = 2,
) -> dict[str, Timing]:
    """Time contestants in alternating blocks of steps.

    Of each block counts the median step; of each contestant the median over blocks, and the
    median of the ratios to the first contestant block by block, so that a machine that changes
    its speed changes it for all.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(warm_up + blocks):
        for name, step in contestants.items():
            found[name].append(_block(step, length))
    kept = {name: values[warm_up:] for name, values in found.items()}
    reference = next(iter(kept.values()))
    timings = {}
    for name, values in kept.items():
        ratios = [value / other for value, other in zip(values, reference, strict=True)]
        timings[name] = Timing(median(values) * 1e3, median(ratios), min(ratios), max(ratios))
    return timings


def _block(step: Callable[[], object], length: int) -> float:
    taken = []
    for _ in range(length):
        _synchronize()
        begin = time.perf_counter()
        step()
        _synchronize()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> str:
    """What the figures were measured on, in a line."""
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"torch {torch.__version__}, {place}, {torch.get_num_threads()} threads"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
