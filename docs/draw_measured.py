"""Draw the measured pictures of the pages again: ``python -m docs.draw_measured`` in the root.

Nothing is measured. The figures are those of the tables in the pages. Those of ``mnist.png`` and
``pipeline.png`` are stored in ``docs/figures/``; ``--simulate`` computes those of the pipelines
again, in half a minute. ``audit.png`` and ``influence.png`` are not among them: tasks draw them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import memory, pipeline, window_results
from benchmarks.pipeline_simulation import forecast, Times
from tasks import plots

_DOCS = Path(__file__).parent
_FIGURES = _DOCS / "figures"
_MIB = 2**20
_NUMBER = r"\d+(?:\.\d+)?"


def table_rows(page: str, header: str) -> list[list[str]]:
    """Return the cells of all tables of a page whose header row begins with a text.

    Args:
        page: Name of the page.
        header: Start of the header row.
    """
    rows: list[list[str]] = []
    inside = False
    for line in (_DOCS / page).read_text().splitlines():
        if line.startswith(header):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def memory_figures() -> list[dict[str, Any]]:
    """Return the figures of ``python -m benchmarks memory`` as the page shows them."""
    text = (_DOCS / "memory.md").read_text()
    networks = re.findall(r"^(.+)\. Each cell gives the activations", text, re.MULTILINE)
    rows = table_rows("memory.md", "| blocks | backpropagation | checkpoint, root |")
    depths = len(rows) // len(networks)
    found = []
    for i, (blocks, *cells) in enumerate(rows):
        network = networks[i // depths]
        for method, cell in zip(memory.METHODS, cells, strict=True):
            mib, ratio, *bounds = map(float, re.findall(_NUMBER, cell))
            low, high = bounds if len(bounds) == 2 else (ratio, ratio)
            own = {"network": network, "method": method, "blocks": int(blocks)}
            found.append(
                {**own, "activation_bytes": mib * _MIB, "ratio": ratio, "low": low, "high": high}
            )
    return found


def window_points() -> list[window_results.Point]:
    """Return the results of the study of windows as the page shows them."""
    points, task, window = [], "", ""
    for cells in table_rows("recurrent.md", "| task | T | mode | rate |"):
        task, window = cells[0] or task, cells[1] or window
        mean, low, high = map(float, re.findall(_NUMBER, cells[4]))
        points.append(window_results.Point(task, int(window), cells[2].strip("`"), mean, low, high))
    modes = ("bp", "bp4", "dni")
    # The page has further tables, of variants; the first result of a mode is that of the study.
    first = {(p.task, p.window, p.mode): p for p in reversed(points) if p.mode in modes}
    return sorted(first.values(), key=points.index)


def memory_picture() -> bytes:
    """Draw memory and step time over depth."""
    return memory.plot(memory_figures())


def windows_picture() -> bytes:
    """Draw the results of the study of windows."""
    return window_results.plot_points(window_points(), {"characters"})


def simulate_pipelines(stages: Sequence[int] = (2, 8, 64, 1024)) -> list[dict[str, Any]]:
    """Simulate pipelines with the times that the page names; 1,024 stages take half a minute.

    Args:
        stages: Numbers of stages.
    """
    times = Times(forward=0.01, backward=0.02, message=0.0005, piece=0.0005)
    return [
        result._asdict()
        for count in stages
        for latency in pipeline.LATENCIES
        for result in forecast(count, latency, times, micro_batches=16)
    ]


def pipeline_figures() -> list[dict[str, Any]]:
    """Return the figures of the simulation that are stored."""
    found: list[dict[str, Any]] = json.loads((_FIGURES / "pipeline.json").read_text())
    return found


def pipeline_picture() -> bytes:
    """Draw the simulated throughput of pipelines."""
    return pipeline.plot({"simulation": pipeline_figures()})


def mnist_picture() -> bytes:
    """Draw test errors from the metrics that ``python -m tasks.mnist --out DIR`` wrote."""
    lines = (_FIGURES / "mnist.jsonl").read_text().splitlines()
    return plots.plot_test_errors([json.loads(line) for line in lines], "MNIST")


PICTURES: dict[str, Callable[[], bytes]] = {
    "memory": memory_picture,
    "windows": windows_picture,
    "pipeline": pipeline_picture,
    "mnist": mnist_picture,
}


def main(folder: Path, simulate: bool) -> None:
    """Write all pictures into a folder.

    Args:
        folder: The folder.
        simulate: Whether the pipelines are simulated again first.
    """
    if simulate:
        rows = ",\n".join(map(json.dumps, simulate_pipelines()))
        (_FIGURES / "pipeline.json").write_text(f"[\n{rows}\n]\n")
    for name, draw in PICTURES.items():
        (folder / f"{name}.png").write_bytes(draw())


if __name__ == "__main__":
    main(_DOCS / "images", simulate="--simulate" in sys.argv[1:])
