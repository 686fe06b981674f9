"""Where a network is cut: sites, and the parts between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from .._checkpoint import listed, mapping, reading, text
from .._flat import Fixed
from ..errors import CheckpointError
from ..placement import CutPlan, Part, Site


class CutPlaces(NamedTuple):
    """The places of a network's cuts.

    Attributes:
        sites: The sites by name.
        parts: The parts between them.
        before_activation: By name, the activation functions that a cut stands before.
    """

    sites: dict[str, Site]
    parts: list[Part]
    before_activation: dict[str, str]

    @classmethod
    def at(cls, sites: Iterable[Site]) -> CutPlaces:
        """Return places at known sites."""
        return cls({site.name: site for site in sites}, [], {})

    @classmethod
    def of(cls, plan: CutPlan) -> CutPlaces:
        """Return the places of a plan."""
        return cls({site.name: site for site in plan.sites}, plan.parts, plan.before_activation)

    def describe(self, reached: Collection[str]) -> list[str]:
        """Return lines on what a user may not expect of the cuts.

        Args:
            reached: Names of the cuts that have been made.
        """
        before = [f"{name!r} ({kind})" for name, kind in self.before_activation.items()]
        waiting = [repr(name) for name in self.sites if name not in reached]
        lines = [f"cut before the activation function: {', '.join(before)}"] if before else []
        return lines + ([f"not reached yet: {', '.join(waiting)}"] if waiting else [])

    def state_dict(self, idle: Collection[str]) -> dict[str, Any]:
        """Return the places, and the layers that have not run yet, as plain data and tensors."""
        return {
            "sites": Fixed([[*site] for site in self.sites.values()]),
            "parts": [part.state_dict() for part in self.parts],
            "before_activation": {**self.before_activation},
            "idle": Fixed(sorted(idle)),
        }

    @classmethod
    def read(
        cls, state: Mapping[str, Any], network: nn.Module
    ) -> tuple[CutPlaces, Collection[str]]:
        """Read saved places, and the names of the layers that had not run.

        Raises:
            CheckpointError: They are malformed, or do not fit the network.
        """
        with reading("the list of cuts"):
            sites = {text(name): Site(name, text(source)) for name, source in state["sites"]}
            parts = [Part.from_state(part) for part in listed(state["parts"])]
            saved = mapping(state["before_activation"])
            before = {name: text(kind) for name, kind in saved.items()}
            idle = {text(name) for name in listed(state["idle"])}
            others = {*before, *(part.cut for part in parts if part.cut)} - sites.keys()
            if others:
                raise ValueError(f"{sorted(others)} are no cuts")
        known = {name for name, _ in network.named_modules(remove_duplicate=False)}
        for place, names in [*sites.items(), *((name, (name,)) for name in idle)]:
            if not known.issuperset(names):
                raise CheckpointError(
                    f"the checkpoint does not fit this wrapper: it has a cut at {place!r}, "
                    "which is no module of this network: give DNI the network it was saved with"
                )
        return cls(sites, parts, before), idle
