"""The folder of a run: metrics, a checkpoint and curves."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from . import files
from .errors import TaskError

METRICS, CHECKPOINT, CURVES = "metrics.jsonl", "checkpoint.pt", "curves.png"
#: Where runs get a folder if ``--out`` names none.
RUNS = Path("runs")
_CHECKPOINT_KEYS = {"task", "options", "total", "step", "runs", "history"}


class OutputFolder:
    """The folder that ``--out`` names, or else a new one in ``runs/``.

    Args:
        folder: Path of the folder; None for a new one.
        task: Name of the task, by which a new folder is named.
        resumed: Whether the run continues the one that is in the folder.
        names: Names of further files that the run writes.

    Attributes:
        path: Path of the folder; None where no new one could be made: nothing is written then.

    Raises:
        TaskError: The folder holds a run already, and that run is not resumed.
    """

    def __init__(
        self, folder: Path | None, task: str, resumed: bool = False, names: Iterable[str] = ()
    ) -> None:
        self.path = new_folder(task) if folder is None else folder
        self._given = folder is not None
        if not resumed:
            advice = "continue it with --resume, or give another --out"
            files.check_unused(self.path, (METRICS, CHECKPOINT, CURVES, *names), advice)

    def create(self) -> str:
        """Create the folder, check that files can be written to it, and say where it is.

        Raises:
            TaskError: The folder that was given cannot be written to.
        """
        assert self.path is not None
        try:
            with files.reporting_write_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.path):
                    pass
        except TaskError as error:
            if self._given:
                raise
            self.path = None
            return f"nothing is saved: {error}"
        return f"picture {CURVES}, {METRICS} and {CHECKPOINT} are kept in {self.path}"

    def save(
        self,
        state: Mapping[str, Any],
        rows: Iterable[Mapping[str, Any]],
        draw: Callable[[], bytes],
        others: Mapping[str, bytes] | None = None,
    ) -> None:
        """Replace checkpoint, metrics and curves.

        Args:
            state: Content of the checkpoint.
            rows: Rows of the metrics.
            draw: Draws the curves.
            others: Content of further files, by name.

        Raises:
            TaskError: The folder cannot be written to.
        """
        if self.path is None:
            return
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with files.reporting_write_errors(self.path):
            files.save_checkpoint(self.path / CHECKPOINT, dict(state))
            files.write_atomically(self.path / METRICS, lines.encode())
            files.write_atomically(self.path / CURVES, draw())
            for name, content in (others or {}).items():
                files.write_atomically(self.path / name, content)


def new_folder(task: str) -> Path:
    """Return the path of a folder that does not exist: ``runs/TASK``, or ``runs/TASK-2``, ..."""
    names = itertools.chain([task], (f"{task}-{number}" for number in itertools.count(2)))
    return next(RUNS / name for name in names if not (RUNS / name).exists())


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
