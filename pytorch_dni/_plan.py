"""The parts that a network is cut into, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from ._probe import Call, Site
from .interfaces import BidirectionalInterface
from .interfaces._unidirectional import UnidirectionalInterface

_LISTED = 3


class Part(NamedTuple):
    """A part, as plain data.

    Attributes:
        cut: Name of the cut behind it; empty for the last part.
        modules: Its leaf modules, in the order of the run.
        parameters: How many they have; those shared with a part before are counted there.
        bytes: Of what they returned.
    """

    cut: str
    modules: list[str]
    parameters: int
    bytes: int


def parts(calls: Sequence[Call], sites: Sequence[Site]) -> list[Part]:
    """The parts between cuts, from the calls of a run."""
    places = {site.name for site in sites}
    found: list[Part] = []
    modules: dict[str, None] = {}
    counted: set[int] = set()
    stored: set[int] = set()
    parameters = kept = 0
    for call in calls:
        if next(call.module.children(), None) is None:
            modules[call.name] = None
            storage = call.output.untyped_storage()
            if storage.data_ptr() not in stored:
                stored.add(storage.data_ptr())
                kept += storage.nbytes()
            for parameter in call.module.parameters(recurse=False):
                if id(parameter) not in counted:
                    counted.add(id(parameter))
                    parameters += parameter.numel()
        if call.name in places:
            places.remove(call.name)
            found.append(Part(call.name, [*modules], parameters, kept))
            modules, parameters, kept = {}, 0, 0
    found.append(Part("", [*modules], parameters, kept))
    return found


def table(plan: Sequence[Part], interfaces: Mapping[str, nn.Module]) -> str:
    """The parts, and what the synthesizers behind them are made of."""
    synthesizers = {name: _synthesizers(interface) for name, interface in interfaces.items()}
    rows = [["part", "modules", "parameters", "activation bytes", "cut", "synthesizer parameters"]]
    for i, part in enumerate(plan):
        size = _count(synthesizers[part.cut]) if part.cut in synthesizers else "-"
        modules = _short(part.modules)
        bytes_ = f"{part.bytes:,}"
        rows.append([str(i + 1), modules, f"{part.parameters:,}", bytes_, part.cut or "-", size])
    known = {part.cut for part in plan}
    for name, synthesizer in synthesizers.items():
        if name not in known:
            rows.append(["-", "-", "-", "-", name or "(output)", _count(synthesizer)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for i in (2, 3, 5):
            cells[i] = row[i].rjust(widths[i])
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _synthesizers(interface: nn.Module) -> list[nn.Module]:
    if isinstance(interface, BidirectionalInterface):
        both = interface.forward_interface, interface.backward_interface
        return [one.synthesizer for one in both]
    assert isinstance(interface, UnidirectionalInterface)
    return [interface.synthesizer]


def _count(modules: Sequence[nn.Module]) -> str:
    return f"{sum(p.numel() for module in modules for p in module.parameters()):,}"


def _short(names: Sequence[str]) -> str:
    if len(names) <= _LISTED:
        return ", ".join(names) or "-"
    return f"{names[0]} ... {names[-1]} ({len(names)})"
