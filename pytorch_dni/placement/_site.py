"""A place to cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ._calls import Call
from ._layers import has_weight


class Site(NamedTuple):
    """A place to cut: the output of one module.

    Attributes:
        name: Qualified name of the module.
        source: Qualified name of the layer that computes the features; it tells their dimension.
    """

    name: str
    source: str


def site_at(position: int, calls: Sequence[Call]) -> Site:
    """Return a site at what a call returned.

    Its source is the last layer with a weight up to it whose output has as many dimensions.

    Args:
        position: Which of the calls.
        calls: The calls of a run.
    """
    place = calls[position]
    for call in reversed(calls[: position + 1]):
        if has_weight(call.module) and call.output.dim() == place.output.dim():
            return Site(place.name, call.name)
    return Site(place.name, place.name)
