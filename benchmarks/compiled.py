"""Step times with ``compile()`` and without."""

from __future__ import annotations

import os
import shutil
from typing import Any

from tasks.errors import TaskError

from . import deep_networks
from .report import markdown_table
from .timing import time_steps
from .training_methods import set_up_training

_METHODS = ("backpropagation", "default", "eager")


def run(
    device: str, depth: int = 8, blocks: int = 7, backend: str = "inductor"
) -> tuple[str, list[dict[str, Any]]]:
    """Time all types of networks.

    Args:
        device: Where they are trained.
        depth: Number of blocks of a network.
        blocks: Number of blocks of steps that are measured.
        backend: Backend of ``torch.compile``.

    Returns:
        A table and its figures.

    Raises:
        TaskError: There is no C++ compiler, and the backend needs one.
    """
    if backend == "inductor" and device == "cpu":
        _check_compiler()
    header = ["network", "method", "ms / step", "compiled, ms", "compiled over plain", "range"]
    rows, figures = [], []
    for name, network_type in deep_networks.NETWORK_TYPES.items():
        for method in _METHODS:
            steps = {
                "plain": set_up_training(network_type, depth, method, device).step,
                "compiled": set_up_training(network_type, depth, method, device, backend).step,
            }
            plain, compiled = time_steps(steps, blocks, length=5, warm_up=2).values()
            times = [f"{plain.milliseconds:.1f}", f"{compiled.milliseconds:.1f}"]
            rows.append([name, method, *times, f"{compiled.ratio:.2f}", compiled.range])
            row: dict[str, Any] = {"network": name, "method": method}
            figures.append({**row, "plain_ms": plain.milliseconds, **compiled._asdict()})
    return markdown_table(header, rows), figures


def _check_compiler() -> None:
    compilers = (os.environ.get("CXX"), "g++", "clang++")
    if not any(shutil.which(compiler) for compiler in compilers if compiler):
        raise TaskError("torch.compile needs a C++ compiler, and none is installed")
