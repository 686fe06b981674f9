"""Peak memory and step time over depth: eager learning, backpropagation and checkpointing."""

from __future__ import annotations

from typing import Any

import torch

from tasks import plots

from . import deep_networks
from .memory_tracker import peak_memory
from .report import markdown_table
from .timing import time_steps
from .training_methods import METHODS, set_up_training

DEPTHS = (8, 16, 32, 64)
_MEASURED_STEPS = 9  # DNI computes the figures of stats() in one step of eight
_MIB = 2**20


def run(device: str, depths: tuple[int, ...] = DEPTHS, blocks: int = 5) -> tuple[str, Any]:
    """Measure peak memory and step time for all types of networks, depths and methods.

    Args:
        device: Where the networks are trained.
        depths: Numbers of blocks of the networks.
        blocks: Number of blocks of steps whose time is measured.

    Returns:
        A table and its figures.
    """
    header = ["network", "blocks", "method", "activations, MiB", "activations / bp"]
    header += ["with gradients, MiB", "ms / step", "step time / bp", "range"]
    rows, figures = [], []
    for name, network_type in deep_networks.NETWORK_TYPES.items():
        for depth in depths:
            measured = _measure(network_type, depth, device, blocks)
            bp_bytes = measured[0]["activation_bytes"]  # the first method is backpropagation
            for row in measured:
                figures.append({"network": name, "blocks": depth, **row})
                rows.append([name, str(depth), *_cells(row, bp_bytes)])
    return markdown_table(header, rows), figures


def _measure(
    network_type: deep_networks.NetworkType, depth: int, device: str, blocks: int
) -> list[dict[str, Any]]:
    """Return the figures of all methods for one network."""
    # Memory is measured before the networks for the step times exist, and one method at a time.
    peaks = {method: _peak_memory(network_type, depth, method, device) for method in METHODS}
    steps = {
        method: set_up_training(network_type, depth, method, device).step for method in METHODS
    }
    timings = time_steps(steps, blocks, length=3, warm_up=1)
    return [
        {
            "method": method,
            "activation_bytes": activations,
            "bytes": total,
            **timings[method]._asdict(),
        }
        for method, (activations, total) in peaks.items()
    ]


def _cells(row: dict[str, Any], bp_bytes: int) -> list[str]:
    return [
        row["method"],
        f"{row['activation_bytes'] / _MIB:.2f}",
        f"{row['activation_bytes'] / bp_bytes:.3f}",
        f"{row['bytes'] / _MIB:.1f}",
        f"{row['milliseconds']:.1f}",
        f"{row['ratio']:.2f}",
        f"{row['low']:.2f} to {row['high']:.2f}",
    ]


def _peak_memory(
    network_type: deep_networks.NetworkType, depth: int, method: str, device: str
) -> tuple[int, int]:
    """Return the peak memory in bytes without gradients of parameters, and with them."""
    setup = set_up_training(network_type, depth, method, device)
    if device != "cpu":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(_MEASURED_STEPS):
            setup.step()
        # The allocator does not distinguish gradients from activations.
        peak = torch.cuda.max_memory_allocated(device) - before
        return peak, peak
    peaks = [
        peak_memory(setup.step, setup.network, setup.synthesizer_parameters, setup.optimizers)
        for _ in range(_MEASURED_STEPS)
    ]
    return max(without for without, _ in peaks), max(with_ for _, with_ in peaks)


def plot(figures: list[dict[str, Any]]) -> bytes:
    """Plot peak memory and step time over depth as PNG, one column for each type of network."""
    networks = list(dict.fromkeys(row["network"] for row in figures))
    figure = plots.new_figure(4.4 * len(networks), 6.4)
    axes = figure.subplots(2, len(networks), squeeze=False)
    for (upper, lower), network in zip(axes.T, networks, strict=True):
        for method in METHODS:
            rows = [row for row in figures if (row["network"], row["method"]) == (network, method)]
            depths = [row["blocks"] for row in rows]
            peaks = [row["activation_bytes"] / _MIB for row in rows]
            upper.plot(depths, peaks, marker=".", label=method)
            lower.plot(depths, [row["ratio"] for row in rows], marker=".", label=method)
        upper.set(title=network, ylabel="activations at the peak, MiB", ylim=(0, None))
        lower.set(xlabel="blocks", ylabel="step time / backpropagation's", ylim=(0.5, None))
        for panel in (upper, lower):
            panel.grid(alpha=0.3)
            panel.set_xscale("log", base=2)
            panel.set_xticks(depths, [str(depth) for depth in depths])
    axes[0][0].legend()
    return plots.to_png(figure, dpi=110)
