"""Memory and time over depth: eager learning against backpropagation and checkpointing."""

from __future__ import annotations

import io
from typing import Any

import torch

from . import deep, live, measure

DEPTHS = (8, 16, 32, 64)
_MEASURED = 9  # steps: figures for stats() are taken in one of eight
_MIB = 2**20


def run(device: str, depths: tuple[int, ...] = DEPTHS, blocks: int = 5) -> tuple[str, Any]:
    """Peak bytes and step times of all ways, networks and depths, as a table and as figures."""
    header = ["network", "blocks", "way", "activations, MiB", "of bp", "with gradients, MiB",
              "ms / step", "of bp", "range"]  # fmt: skip
    rows, figures = [], []
    for name, kind in deep.KINDS.items():
        for depth in depths:
            # One after the other: none is to be there while another is measured.
            found = {way: _peaks(kind, depth, way, device) for way in deep.WAYS}
            made = {way: deep.contestant(kind, depth, way, device) for way in deep.WAYS}
            steps = {way: one.step for way, one in made.items()}
            times = measure.steps(steps, blocks, length=3, warm_up=1)
            least = found["backpropagation"][0]
            for way, (alone, together) in found.items():
                t = times[way]
                rows.append(
                    [name, str(depth), way, f"{alone / _MIB:.2f}", f"{alone / least:.3f}",
                     f"{together / _MIB:.1f}", f"{t.milliseconds:.1f}", f"{t.ratio:.2f}",
                     f"{t.low:.2f} to {t.high:.2f}"]
                )  # fmt: skip
                figures.append(
                    {"network": name, "blocks": depth, "way": way, "activation_bytes": alone,
                     "bytes": together, **t._asdict()}
                )  # fmt: skip
    return measure.table(header, rows), figures


def _peaks(kind: deep.Kind, depth: int, way: str, device: str) -> tuple[int, int]:
    one = deep.contestant(kind, depth, way, device)
    if device != "cpu":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(_MEASURED):
            one.step()
        # The allocator does not know gradients from activations.
        most = torch.cuda.max_memory_allocated(device) - before
        return most, most
    found = [
        live.peaks(one.step, one.network, one.synthesizers, one.optimizers)
        for _ in range(_MEASURED)
    ]
    return max(alone for alone, _ in found), max(together for _, together in found)


def picture(figures: list[dict[str, Any]]) -> bytes:
    """Peaks and step times over depth as PNG, a column for each kind of network."""
    # Takes half a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["network"] for row in figures))
    figure = Figure(figsize=(4.4 * len(networks), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(networks), squeeze=False)
    for column, network in enumerate(networks):
        for way in deep.WAYS:
            rows = [row for row in figures if (row["network"], row["way"]) == (network, way)]
            depths = [row["blocks"] for row in rows]
            peaks = [row["activation_bytes"] / _MIB for row in rows]
            axes[0][column].plot(depths, peaks, marker=".", label=way)
            axes[1][column].plot(depths, [row["ratio"] for row in rows], marker=".", label=way)
        axes[0][column].set(title=network, ylabel="activations at the peak, MiB", ylim=(0, None))
        axes[1][column].set(
            xlabel="blocks", ylabel="step time / backpropagation's", ylim=(0.5, None)
        )
        for row in axes:
            row[column].grid(alpha=0.3)
            row[column].set_xscale("log", base=2)
            row[column].set_xticks(depths, [str(depth) for depth in depths])
    axes[0][0].legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
