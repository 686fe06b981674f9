"""Step time by width of the network and of the synthesizers' hidden layer."""

from __future__ import annotations

from typing import Any

from .deep_networks import mlp
from .report import markdown_table
from .timing import time_steps
from .training_methods import set_up_training

WIDTHS = (64, 128, 256, 512, 1024)
SYNTHESIZER_WIDTHS = (16, 64, 256)
_DEPTH, _BATCH = 8, 256


def run(
    device: str, widths: tuple[int, ...] = WIDTHS, blocks: int = 7
) -> tuple[str, list[dict[str, Any]]]:
    """Time eager learning relative to backpropagation.

    Args:
        device: Where the networks are trained.
        widths: Widths of the networks.
        blocks: Number of blocks of steps that are measured.

    Returns:
        A table and its figures.
    """
    eager_names = {hidden: f"eager, hidden {hidden}" for hidden in SYNTHESIZER_WIDTHS}
    header = ["width", "backpropagation, ms", *eager_names.values(), "local"]
    rows, figures = [], []
    for width in widths:
        network_type = mlp(width, _BATCH, SYNTHESIZER_WIDTHS[0])
        bp = set_up_training(network_type, _DEPTH, "backpropagation", device)
        steps = {"backpropagation": bp.step}
        for hidden, name in eager_names.items():
            eager_type = mlp(width, _BATCH, hidden)
            steps[name] = set_up_training(eager_type, _DEPTH, "eager", device).step
        steps["local"] = set_up_training(network_type, _DEPTH, "local", device).step
        timings = time_steps(steps, blocks, length=5, warm_up=1)
        bp_timing, *others = timings.values()
        ratios = [f"{t.ratio:.2f} ({t.range})" for t in others]
        rows.append([str(width), f"{bp_timing.milliseconds:.2f}", *ratios])
        for method, t in timings.items():
            figures.append({"width": width, "method": method, **t._asdict()})
    return markdown_table(header, rows), figures
