"""Keeping the figures of ``stats()`` beside other figures of a training run.

:class:`StatsWriter` gives them to an object like TensorBoard's ``SummaryWriter``.
``LightningStats`` is a callback of Lightning, ``TrainerStats`` one of the ``Trainer`` of Hugging
Face transformers. Those packages are no dependencies: they are imported when one of the two classes
is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, TYPE_CHECKING

from ._figures import figures, wrappers
from ._writer import ScalarWriter, StatsWriter

if TYPE_CHECKING:
    from ._lightning import LightningStats
    from ._transformers import TrainerStats

__all__ = [
    "figures",
    "wrappers",
    "ScalarWriter",
    "StatsWriter",
    "LightningStats",
    "TrainerStats",
]

_LAZY = {"LightningStats": "_lightning", "TrainerStats": "_transformers"}


def __getattr__(name: str) -> Any:
    """Import the callbacks of other packages when they are asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
