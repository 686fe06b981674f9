"""Where a network is cut, as plain data of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from .._checkpoint import number, reading, text
from ..errors import CheckpointError
from ..placement import Part, Site


class SavedPlaces(NamedTuple):
    """The places of a network's cuts.

    Attributes:
        sites: The sites by name.
        parts: The parts between them.
        placed: Whether the sites are known; if not, a first pass is to find them.
    """

    sites: dict[str, Site]
    parts: list[Part]
    placed: bool


def save_places(sites: Iterable[Site], parts: Sequence[Part], placed: bool) -> dict[str, Any]:
    """Return the places as plain data."""
    return {
        "sites": [[*site] for site in sites],
        "placed": placed,
        "parts": [[*part] for part in parts],
    }


def read_places(state: Mapping[str, Any], network: nn.Module) -> SavedPlaces:
    """Read saved places.

    Raises:
        CheckpointError: They are malformed, or do not fit the network.
    """
    with reading("the list of cuts"):
        sites = {text(name): Site(name, text(source)) for name, source in state["sites"]}
        parts = [_part(*part) for part in state["parts"]]
        placed = bool(state["placed"])
    known = {name for name, _ in network.named_modules(remove_duplicate=False)}
    for site in sites.values():
        if not known.issuperset(site):
            raise CheckpointError(
                f"the checkpoint does not fit this wrapper: it has a cut at {site.name!r}, "
                "which is no module of this network: give DNI the network it was saved with"
            )
    return SavedPlaces(sites, parts, placed)


def _part(cut: Any, modules: Any, parameters: Any, size: Any) -> Part:
    return Part(text(cut), [text(name) for name in modules], number(parameters), number(size))
