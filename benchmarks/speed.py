"""Step time of 32 residual blocks of width 512, batch 256, by number of CPU threads."""

from __future__ import annotations

from typing import Any

import torch

from . import eager_by_hand
from .deep_networks import mlp
from .report import markdown_table
from .timing import time_steps
from .training_methods import METHODS, set_up_training


def run(
    device: str, depth: int = 32, width: int = 512, blocks: int = 9
) -> tuple[str, list[dict[str, Any]]]:
    """Time all methods with the current number of threads and, on the CPU, with one.

    Args:
        device: Where the network is trained.
        depth: Number of its blocks.
        width: Its width.
        blocks: Number of blocks of steps that are measured.

    Returns:
        A table and its figures.
    """
    header = ["threads", "method", "ms / step", "over backpropagation", "range"]
    rows, figures = [], []
    network_type = mlp(width, 256, 64)
    current_threads = torch.get_num_threads()
    counts = dict.fromkeys((current_threads, 1)) if device == "cpu" else (current_threads,)
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            steps = {
                method: set_up_training(network_type, depth, method, device).step
                for method in METHODS
            }
            if device == "cpu":
                steps["eager, by hand"] = eager_by_hand.training_step(network_type, depth)
            for method, t in time_steps(steps, blocks, length=3, warm_up=1).items():
                times = [f"{t.milliseconds:.0f}", f"{t.ratio:.2f}", t.range]
                rows.append([str(threads), method, *times])
                figures.append({"threads": threads, "method": method, **t._asdict()})
    finally:
        torch.set_num_threads(current_threads)
    return markdown_table(header, rows), figures
