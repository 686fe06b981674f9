"""Placement: where a network is cut, found from the user's choice and from one forward pass."""

from ._error_place import ErrorPlace, feature_dim
from ._first_run import CutPlan, FirstRun, NO_ACTIVATION
from ._graph import PartChain
from ._layers import takes_hooks
from ._parts import merged, Part, parts_table
from ._selection import Layers, select, Selection
from ._site import Site

__all__ = [
    "CutPlan",
    "ErrorPlace",
    "feature_dim",
    "FirstRun",
    "Layers",
    "merged",
    "NO_ACTIVATION",
    "Part",
    "PartChain",
    "parts_table",
    "select",
    "Selection",
    "Site",
    "takes_hooks",
]
