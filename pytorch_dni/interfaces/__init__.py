"""Interfaces: what stands at a cut and passes messages across it."""

from ._deferred import backward, defer_backward
from .backward import BackwardInterface
from .bidirectional import BidirectionalInterface
from .forward import ForwardInterface
from .unidirectional import UnidirectionalInterface

__all__ = [
    "backward",
    "BackwardInterface",
    "BidirectionalInterface",
    "defer_backward",
    "ForwardInterface",
    "UnidirectionalInterface",
]
