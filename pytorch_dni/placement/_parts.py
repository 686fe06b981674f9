"""The parts that a network is cut into, as a table."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .._checkpoint import listed, mapping, text
from .._flat import Fixed
from .._torch import storage_number
from .._tree import sizes
from ._calls import Call
from ._layers import is_unit
from ._site import Site

_LISTED = 3


class Part(NamedTuple):
    """A part, as plain data.

    Attributes:
        cut: Name of the cut at its end; empty for the last part.
        modules: Its leaf modules, in the order of the run.
        parameters: How many they have; parameters shared with an earlier part are counted there.
        bytes: Size of what the modules returned.
    """

    cut: str
    modules: list[str]
    parameters: int
    bytes: int

    def state_dict(self) -> dict[str, Any]:
        """Return the part as plain data and tensors."""
        counts = torch.tensor([self.parameters, self.bytes], dtype=torch.int64, device="cpu")
        return {"cut": self.cut, "modules": Fixed(self.modules), "counts": counts}

    @classmethod
    def from_state(cls, state: Any) -> Part:
        """Return a part that was saved."""
        saved = mapping(state)
        parameters, size = sizes(saved["counts"])
        modules = [text(name) for name in listed(saved["modules"])]
        return cls(text(saved["cut"]), modules, parameters, size)


def merged(parts: Sequence[Part], passed_over: Container[str]) -> Sequence[Part]:
    """Return the parts without some of the cuts: a part goes on to the next cut that is left."""
    found: list[Part] = []
    for part in parts:
        if found and found[-1].cut and found[-1].cut in passed_over:
            before = found.pop()
            sums = before.parameters + part.parameters, before.bytes + part.bytes
            part = Part(part.cut, [*before.modules, *part.modules], *sums)
        found.append(part)
    return found


def parts_between(calls: Sequence[Call], sites: Sequence[Site]) -> list[Part]:
    """Return the parts between cuts, from the calls of a run."""
    cuts = {site.name for site in sites}
    found: list[Part] = []
    modules: dict[str, None] = {}
    counted: set[int] = set()
    stored: set[int] = set()
    parameters = size = 0
    for call in calls:
        if is_unit(call.module):
            modules[call.name] = None
            if storage_number(call.output) not in stored:
                stored.add(storage_number(call.output))
                size += call.output.untyped_storage().nbytes()
            for parameter in call.module.parameters():
                if id(parameter) not in counted:
                    counted.add(id(parameter))
                    parameters += parameter.numel()
        if call.name in cuts:
            cuts.remove(call.name)
            found.append(Part(call.name, [*modules], parameters, size))
            modules, parameters, size = {}, 0, 0
    found.append(Part("", [*modules], parameters, size))
    return found


def parts_table(parts: Sequence[Part], synthesizers: Mapping[str, tuple[str, int]]) -> str:
    """Return the parts as a table.

    Args:
        parts: The parts.
        synthesizers: By the name of the cut, the class of its synthesizer and the number of its
            parameters.
    """
    header = ["part", "modules", "parameters", "activation bytes", "cut"]
    rows = [[*header, "synthesizer parameters", "synthesizer"]]
    for i, part in enumerate(parts):
        modules = _short(part.modules)
        numbers = [f"{part.parameters:,}", f"{part.bytes:,}"]
        own = _cells(synthesizers.get(part.cut))
        rows.append([str(i + 1), modules, *numbers, part.cut or "-", *own])
    known = {part.cut for part in parts}
    for name, synthesizer in synthesizers.items():
        if name not in known:
            rows.append(["-", "-", "-", "-", name or "(output)", *_cells(synthesizer)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for i in (2, 3, 5):
            cells[i] = row[i].rjust(widths[i])
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cells(synthesizer: tuple[str, int] | None) -> list[str]:
    return ["-", "-"] if synthesizer is None else [f"{synthesizer[1]:,}", synthesizer[0]]


def _short(names: Sequence[str]) -> str:
    if len(names) <= _LISTED:
        return ", ".join(names) or "-"
    return f"{names[0]} ... {names[-1]} ({len(names)})"
