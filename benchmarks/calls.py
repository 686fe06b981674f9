"""Operators called in a training step; on a GPU also kernel launches and synchronizations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import profile, ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode

from .deep_networks import mlp
from .report import markdown_table
from .training_methods import METHODS, set_up_training

_STEPS = 8  # DNI computes the figures of stats() in one step of eight


class OperatorCounter(TorchDispatchMode):
    """While active, counts the operators that PyTorch calls.

    Attributes:
        count: Their number so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def run(device: str, depth: int = 32, width: int = 512) -> tuple[str, list[dict[str, Any]]]:
    """Count for all methods on an MLP.

    Returns:
        A table and its figures: means over eight steps.
    """
    network_type = mlp(width, 256, 64)
    figures: list[dict[str, Any]] = []
    for method in METHODS:
        step = set_up_training(network_type, depth, method, device).step
        for _ in range(_STEPS):  # DNI computes more in its first steps
            step()
        row: dict[str, Any] = {"method": method, "operators": _count_operators(step)}
        if device != "cpu":
            row["kernel launches"] = _count_launches(step)
            row["synchronizations"] = _count_synchronizations(step)
        figures.append(row)
    rows = [[str(value) for value in row.values()] for row in figures]
    return markdown_table([*figures[0]], rows), figures


def _count_operators(step: Callable[[], None]) -> float:
    with OperatorCounter() as counter:
        for _ in range(_STEPS):
            step()
    return counter.count / _STEPS


def _count_launches(step: Callable[[], None]) -> float:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(_STEPS):
            step()
    events = profiler.events() or []
    return sum("LaunchKernel" in event.name for event in events) / _STEPS


def _count_synchronizations(step: Callable[[], None]) -> float:
    previous_mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(_STEPS):
                step()
    finally:
        torch.cuda.set_sync_debug_mode(previous_mode)
    return sum("synchroniz" in str(warning.message) for warning in caught) / _STEPS
