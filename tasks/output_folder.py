"""The folder that a comparison of modes writes: metrics, a checkpoint and curves."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from . import files, plots
from .errors import TaskError

METRICS, CHECKPOINT, CURVES = "metrics.jsonl", "checkpoint.pt", "curves.png"
_CHECKPOINT_KEYS = {"task", "options", "total", "step", "runs", "history"}


class OutputFolder:
    """The folder that ``--out`` names; without a name, nothing is written.

    Args:
        folder: Path of the folder, or None.
        resumed: Whether the run continues the one that is in the folder.

    Raises:
        TaskError: The folder holds a run already, and that run is not resumed.
    """

    def __init__(self, folder: Path | None, resumed: bool) -> None:
        self._folder = folder
        if folder is not None and not resumed:
            advice = "continue it with --resume, or give another --out"
            files.check_unused(folder, (METRICS, CHECKPOINT, CURVES), advice)

    def create(self) -> None:
        """Create the folder and check that files can be written to it.

        Raises:
            TaskError: The folder cannot be written to.
        """
        if self._folder is None:
            return
        with files.reporting_write_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass

    def save(self, state: dict[str, Any], title: str) -> None:
        """Replace checkpoint, metrics and curves.

        Args:
            state: Content of the checkpoint; its ``history`` gives metrics and curves.
            title: Title of the curves.

        Raises:
            TaskError: The folder cannot be written to.
        """
        if self._folder is None:
            return
        history = state["history"]
        lines = "".join(json.dumps(row) + "\n" for row in history)
        with files.reporting_write_errors(self._folder):
            files.save_checkpoint(self._folder / CHECKPOINT, state)
            files.write_atomically(self._folder / METRICS, lines.encode())
            files.write_atomically(self._folder / CURVES, plots.plot_test_errors(history, title))


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Load the checkpoint in a folder.

    Raises:
        TaskError: There is none, or it cannot be read.
    """
    path = folder / CHECKPOINT
    checkpoint = files.load_checkpoint(path, "cpu", "resume")
    complete = isinstance(checkpoint, dict) and set(checkpoint) == _CHECKPOINT_KEYS
    if not complete or not isinstance(checkpoint["options"], dict):
        raise TaskError(f"{path} is not a checkpoint of a task")
    return dict(checkpoint)
