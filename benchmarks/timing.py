"""Step times of several training steps, measured in turn on the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Step time of one training step among several.

    Attributes:
        milliseconds: Median step time.
        ratio: Median of its ratios to the first training step.
        low: Lowest ratio.
        high: Highest ratio.
    """

    milliseconds: float
    ratio: float
    low: float
    high: float

    @property
    def range(self) -> str:
        """The lowest and the highest ratio as text."""
        return f"{self.low:.2f} to {self.high:.2f}"


def time_steps(
    steps: Mapping[str, Callable[[], object]],
    blocks: int = 15,
    length: int = 20,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time several training steps in alternating blocks.

    The time of a block is the median of its steps. Ratios to the first training step are computed
    block by block, because a change in the speed of the machine affects all of them alike.

    Args:
        steps: Training steps by name; the ratios are relative to the first one.
        blocks: Number of measured blocks of each training step.
        length: Number of steps in a block.
        warm_up: Number of blocks before that are not measured.
        clock: Returns seconds; ``time.process_time`` counts those of this process alone.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(warm_up + blocks):
        for name, step in steps.items():
            times[name].append(_time_block(step, length, clock))
    measured = {name: seconds[warm_up:] for name, seconds in times.items()}
    reference = next(iter(measured.values()))
    timings = {}
    for name, seconds in measured.items():
        ratios = [own / other for own, other in zip(seconds, reference, strict=True)]
        timings[name] = Timing(median(seconds) * 1e3, median(ratios), min(ratios), max(ratios))
    return timings


def _time_block(step: Callable[[], object], length: int, clock: Callable[[], float]) -> float:
    seconds = []
    for _ in range(length):
        _synchronize()
        start = clock()
        step()
        _synchronize()
        seconds.append(clock() - start)
    return median(seconds)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
