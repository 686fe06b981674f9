"""Projections of per-example gradients in a file, written batch by batch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .._checks import check_whole
from ..errors import DNIError
from ._quantities import Quantity
from ._results import SummedValues


class ProjectionFile:
    """A file of projections ``(examples, dim)``, one row for each example, in NumPy's format.

    ``numpy.load(path, mmap_mode="r")`` reads it. A file beside it, ``path`` with ``.json``, says
    how many rows are written, and of what: a run that was stopped goes on after the last batch that
    it has written.

    Args:
        path: The file, which ends in ``.npy``.
        examples: Number of examples, all batches together.

    Raises:
        DNIError: An argument is wrong, or NumPy is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], examples: int) -> None:
        check_whole("examples", examples, 1)
        self.path, self.examples = Path(path), examples
        if self.path.suffix != ".npy":
            raise DNIError(f"the file of projections must end in .npy, got {str(path)!r}")
        self._rows: Any = None
        self._header: dict[str, Any] = {}
        self._written = 0

    @property
    def written(self) -> int:
        """Number of examples whose projections are in the file."""
        return self._written

    def open(self, dim: int, seed: int, parameters: Mapping[str, Tensor]) -> None:
        """Open the file, or make it.

        Raises:
            DNIError: The file holds projections of another kind.
        """
        numpy = _numpy()
        shapes = json.dumps({name: [*p.shape] for name, p in parameters.items()})
        digest = hashlib.sha256(shapes.encode()).hexdigest()
        header = {"examples": self.examples, "dim": dim, "seed": seed, "parameters": digest}
        note = self._note()
        if note.exists():
            try:
                found = json.loads(note.read_text())
                self._written = int(found.pop("written"))
                self._rows = numpy.lib.format.open_memmap(self.path, mode="r+")
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise DNIError(
                    f"{self.path} and {note} cannot be continued ({error}): delete both"
                ) from error
            if found != header or self._rows.shape != (self.examples, dim):
                raise DNIError(
                    f"{self.path} holds projections of {found}, not of {header}: give another "
                    "file, or delete it and the file beside it"
                )
        else:
            if self.path.exists():
                raise DNIError(f"{self.path} exists, and {note} does not: give another file")
            self._rows = numpy.lib.format.open_memmap(
                self.path, mode="w+", dtype="float32", shape=(self.examples, dim)
            )
        self._header = header
        self._save_note()

    def append(self, rows: Tensor) -> None:
        """Write the projections of the next examples.

        Raises:
            DNIError: There are more than the file has room for.
        """
        end = self._written + len(rows)
        if end > self.examples:
            raise DNIError(
                f"{self.path} has room for {self.examples} examples, of which {self._written} are "
                f"written: {len(rows)} more do not fit. Begin after the first written examples"
            )
        self._rows[self._written : end] = rows.detach().float().cpu().numpy()
        self._rows.flush()
        self._written = end
        self._save_note()

    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def _save_note(self) -> None:
        """Say how much is written, in one step: after the rows are in the file."""
        note = self._note()
        temporary = note.with_name(f"{note.name}.{os.getpid()}")
        temporary.write_text(json.dumps({**self._header, "written": self._written}))
        os.replace(temporary, note)


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise DNIError("a file of projections needs NumPy: pip install numpy") from error
    return numpy


class Projections(SummedValues):
    """Projections of the last backward pass.

    Args:
        quantity: What computes them.
        summed: Computes the projection of whole gradients.
        file: Where they are written.
    """

    def __init__(
        self,
        quantity: Quantity[Tensor],
        summed: Callable[[Mapping[str, Tensor]], Tensor],
        file: ProjectionFile | None,
    ) -> None:
        super().__init__(quantity, summed)
        self._file = file

    @property
    def written(self) -> int:
        """Number of examples that are written; a run that is resumed begins after them.

        Raises:
            DNIError: There is no file.
        """
        return self._given_file().written

    def write(self) -> None:
        """Write the projections of the last backward pass to the file.

        Raises:
            DNIError: There is no file, it is full, or there was no backward pass.
        """
        self._given_file().append(self.total)

    def _given_file(self) -> ProjectionFile:
        if self._file is None:
            raise DNIError("projections are written to a file: give file=ProjectionFile(...)")
        return self._file
