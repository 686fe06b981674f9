"""What a run leaves: metrics, a checkpoint and a picture, each written whole or not at all."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from .options import TaskError

METRICS, CHECKPOINT, CURVES = "metrics.jsonl", "checkpoint.pt", "curves.png"
_KEYS = {"task", "options", "total", "step", "runs", "history"}

Row = dict[str, Any]


def load(folder: Path) -> dict[str, Any]:
    """The checkpoint in a folder.

    Raises:
        TaskError: There is none, or it cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise TaskError(f"no checkpoint in {folder}: there is nothing to resume")
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load tells of damaged files by almost any exception
        raise TaskError(f"unreadable checkpoint {path}: {_first_line(error)}") from error
    known = isinstance(checkpoint, dict) and set(checkpoint) == _KEYS
    if not known or not isinstance(checkpoint["options"], dict):
        raise TaskError(f"{path} is not a checkpoint of a task")
    return dict(checkpoint)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


class Record:
    """The folder of a run; without one nothing is written.

    Raises:
        TaskError: The folder holds a run already, or cannot be written to.
    """

    def __init__(self, folder: Path | None, resumed: bool) -> None:
        self._folder = folder
        if folder is None:
            return
        used = [name for name in (METRICS, CHECKPOINT, CURVES) if (folder / name).exists()]
        if used and not resumed:
            raise TaskError(
                f"{folder} holds a run already ({', '.join(used)}): "
                "go on from it with --resume, or give another --out"
            )

    def open(self) -> None:
        """Make the folder; done late, so that a failed start leaves none behind."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise TaskError(f"cannot write to --out {self._folder}: {error.strerror}") from error

    def save(self, state: dict[str, Any], title: str) -> None:
        """Replace metrics, checkpoint and curves by those of ``state``."""
        if self._folder is None:
            return
        history = state["history"]
        buffer = io.BytesIO()
        torch.save(state, buffer)
        lines = "".join(json.dumps(row) + "\n" for row in history)
        try:
            self._write(CHECKPOINT, buffer.getvalue())
            self._write(METRICS, lines.encode())
            self._write(CURVES, picture(history, title))
        except OSError as error:
            raise TaskError(f"cannot write to --out {self._folder}: {error.strerror}") from error

    def _write(self, name: str, content: bytes) -> None:
        assert self._folder is not None
        replace(self._folder / name, content)


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    # In the same folder, hence on the same disk, where replacing is atomic.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def steps_picture(
    panels: Sequence[tuple[str, Sequence[tuple[str, Sequence[float], Sequence[float]]]]],
    ylabel: str,
    title: str,
    steps: bool = False,
) -> bytes:
    """Panels of lines as PNG: for each, what is along its x axis, and lines (label, x, y)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    colours: dict[str, str] = {}
    for place, (xlabel, lines) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        shown = set()
        for label, xs, ys in lines:
            colour = colours.setdefault(label, f"C{len(colours)}")
            options = {
                "color": colour,
                "alpha": 0.7,
                "label": label if label not in shown else None,
            }
            shown.add(label)
            if steps:
                axes.step(xs, ys, where="post", **options)
            else:
                axes.plot(xs, ys, marker=".", **options)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def picture(history: Sequence[Row], title: str) -> bytes:
    """Error over steps as PNG: a line for each row of the table, the mean over seeds."""
    # Takes half a second to import, and only runs with --out need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    curves: dict[str, dict[int, list[float]]] = {}
    for row in history:
        curve = curves.setdefault(row["label"], {})
        curve.setdefault(row["step"], []).append(100 * row["test_error"])
    for label, curve in curves.items():
        means = [sum(errors) / len(errors) for errors in curve.values()]
        axes.plot(list(curve), means, marker=".", label=label)
    if all(row["test_error"] > 0 for row in history):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.set(xlabel="step", ylabel="test error [%]", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
