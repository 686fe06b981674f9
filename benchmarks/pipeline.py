"""Throughput of decoupled pipelines beside the schedules of torch.distributed.pipelining.

Each rank has one thread. Below, a simulation with more stages and slower links, which is calibrated
on these measurements.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import multiprocessing

from tasks import plots

from .pipeline_ranks import measure, Row, SCHEDULES, single_process, Sizes
from .pipeline_simulation import Forecast, forecast, Times
from .report import markdown_table

LATENCIES = (0.0, 0.005, 0.02, 0.1)
SIZES = Sizes()
_MICRO_BATCHES = 4
_STAGES = (2, 8, 64, 1024)
_SIMULATED_MICRO_BATCHES = 16


def rows(latencies: Sequence[float] = LATENCIES) -> list[Row]:
    """Return what is measured."""
    found = [Row("decoupled", 0, latency) for latency in latencies]
    found += [Row("locked", 0, latency) for latency in latencies]
    for way in SCHEDULES:
        found += [Row(way, _MICRO_BATCHES, latency) for latency in latencies]
    found += [Row(way, count, 0.0) for way in ("GPipe", "1F1B") for count in (2, 8)]
    return found


def run(
    device: str,
    sizes: Sizes = SIZES,
    latencies: Sequence[float] = LATENCIES,
    stages: Sequence[int] = _STAGES,
) -> tuple[str, dict[str, Any]]:
    """Measure on the CPU, whatever the device.

    Returns:
        Tables of samples per second, and the figures.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single = statistics.median(single_process(sizes) for _ in range(sizes.rounds))
    finally:
        torch.set_num_threads(before)
    cores = os.cpu_count() or 1
    tables = [f"one process: {single:.0f} samples/s"]
    figures: dict[str, Any] = {"single": single, "sizes": sizes._asdict(), "ranks": {}}
    for ranks in (2, 4) if cores >= 4 else (2,):
        own = [row for row in rows(latencies) if sizes.blocks % (2 * ranks) == 0]
        found = _measure(ranks, sizes, own)
        figures["ranks"][str(ranks)] = [
            {**row._asdict(), "samples_per_second": speed}
            for row, speed in zip(own, found, strict=True)
        ]
        tables.append(f"{ranks} ranks, samples/s:\n\n{_table(own, found, latencies, single)}")
    two = figures["ranks"]["2"]
    times = calibrated(single, two, sizes)
    simulated = [
        result
        for count in stages
        for latency in latencies
        for result in forecast(count, latency, times, _SIMULATED_MICRO_BATCHES)
    ]
    figures["times"], figures["simulation"] = times._asdict(), [f._asdict() for f in simulated]
    tables.append(
        f"simulation, {_SIMULATED_MICRO_BATCHES} micro-batches:\n\n{_forecasts(simulated)}"
    )
    return "\n\n".join(tables), figures


def calibrated(single: float, two: Sequence[dict[str, Any]], sizes: Sizes) -> Times:
    """Return the times of one part from measurements without latency.

    A backward pass takes twice as long as a forward pass. What two decoupled ranks need beyond half
    of the time of one process is the time of messages. What GPipe needs beyond
    ``(1 + 1 / m)`` times that half, of m micro-batches, is that of its ``2 m`` passes.
    """
    part = sizes.batch / single / 2
    speeds = {
        (row["way"], row["micro_batches"]): row["samples_per_second"]
        for row in two
        if not row["latency"]
    }
    message = sizes.batch / speeds["decoupled", 0] - part
    extra = [
        (sizes.batch / speeds["GPipe", m] - part * (1 + 1 / m)) / (2 * m)
        for m in (2, _MICRO_BATCHES, 8)
    ]
    return Times(part / 3, 2 * part / 3, max(0.0, message), max(0.0, statistics.median(extra)))


def _measure(ranks: int, sizes: Sizes, own: list[Row]) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="dni-pipeline-") as folder:
        multiprocessing.start_processes(
            measure, (ranks, folder, sizes, own), nprocs=ranks, start_method="forkserver"
        )
        found = torch.load(f"{folder}/found-{ranks}", weights_only=True)
    return [statistics.median(times) for times in found]


def _table(
    own: Sequence[Row], found: Sequence[float], latencies: Sequence[float], single: float
) -> str:
    ways: dict[tuple[str, int], dict[float, float]] = {}
    for row, speed in zip(own, found, strict=True):
        ways.setdefault((row.way, row.micro_batches), {})[row.latency] = speed
    header = ["way", "micro-batches", *(f"{1e3 * latency:g} ms" for latency in latencies)]
    lines = []
    for (way, count), speeds in ways.items():
        cells = [
            f"{speeds[latency]:.0f} ({speeds[latency] / single:.2f})" if latency in speeds else ""
            for latency in latencies
        ]
        lines.append([way, str(count or ""), *cells])
    return markdown_table(header, lines)


def _forecasts(simulated: Sequence[Forecast]) -> str:
    header = ["stages", "latency", "way", "batches/s", "bubble", "memory", "staleness"]
    lines = [
        [
            str(result.stages),
            f"{1e3 * result.latency:g} ms",
            result.way,
            f"{result.batches_per_second:.2f}",
            f"{100 * result.bubble:.0f} %",
            f"{result.memory:.1f}",
            str(result.staleness),
        ]
        for result in simulated
    ]
    return markdown_table(header, lines)


def plot(figures: dict[str, Any]) -> bytes:
    """Plot simulated throughput over latency, a panel for each number of stages."""
    simulated = figures["simulation"]
    counts = [*dict.fromkeys(row["stages"] for row in simulated)]
    ways = [*dict.fromkeys(row["way"] for row in simulated)]
    figure = plots.new_figure(max(4.5, 2.25 * len(counts)), 3.4)
    panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, count in zip(panels, counts, strict=True):
        for position, way in enumerate(ways):
            own = [row for row in simulated if (row["stages"], row["way"]) == (count, way)]
            x = [1e3 * row["latency"] for row in own]
            y = [row["batches_per_second"] for row in own]
            axes.plot(x, y, label=way, **plots.curve_style(position))
        axes.set(xlabel="latency [ms]", title=f"{count} stages", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        plots.whole_ticks(axes.xaxis, most=3)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("batches per second")
    plots.add_legend(figure, columns=len(ways))
    return plots.to_png(figure)
