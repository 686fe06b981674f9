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
    """Plot peak memory and step time over depth as PNG, one column for each type of network.

    Bars show the lowest and the highest step time of all rounds.
    """
    networks = list(dict.fromkeys(row["network"] for row in figures))
    figure = plots.new_figure(max(5.0, 3 * len(networks)), 6.6)
    axes = figure.subplots(2, len(networks), squeeze=False, sharex="col")
    for (upper, lower), network in zip(axes.T, networks, strict=True):
        for position, method in enumerate(METHODS):
            rows = [row for row in figures if (row["network"], row["method"]) == (network, method)]
            _plot_method(upper, lower, rows, position)
        upper.set_title(network.replace(", ", "\n", 1), fontsize=10)
        depths = sorted({row["blocks"] for row in figures if row["network"] == network})
        for panel in (upper, lower):
            panel.grid(alpha=0.3)
            panel.set_xscale("log", base=2)
            panel.set_xticks(depths, [str(depth) for depth in depths])
            panel.minorticks_off()
        upper.set_yscale("log")
        plots.plain_log_ticks(upper.yaxis)
        lower.set_xlabel("blocks")
    axes[0][0].set_ylabel("activations at the peak [MiB]")
    axes[1][0].set_ylabel("step time / backpropagation's")
    plots.add_legend(figure, columns=3)
    return plots.to_png(figure)


def _plot_method(upper: Any, lower: Any, rows: list[dict[str, Any]], position: int) -> None:
    """Plot memory above and step times below for one method."""
    style = plots.curve_style(position)
    depths = [row["blocks"] for row in rows]
    peaks = [row["activation_bytes"] / _MIB for row in rows]
    upper.plot(depths, peaks, label=rows[0]["method"], **style)
    # Beside each other, so that the bars of all methods can be seen.
    beside = [depth * 2 ** (0.07 * (position - len(METHODS) / 2)) for depth in depths]
    ranges = [
        [row["ratio"] - row["low"] for row in rows],
        [row["high"] - row["ratio"] for row in rows],
    ]
    ratios = [row["ratio"] for row in rows]
    lower.errorbar(beside, ratios, ranges, capsize=2, elinewidth=1, **style)
