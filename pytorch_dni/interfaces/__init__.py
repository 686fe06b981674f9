"""Interfaces: they stand at a cut and pass messages across it."""

from ._backward import BackwardInterface
from ._base import UnidirectionalInterface
from ._bidirectional import BidirectionalInterface
from ._deferred import backward, defer_backward
from ._error import OutputError
from ._forward import ForwardInterface

__all__ = [
    "backward",
    "BackwardInterface",
    "BidirectionalInterface",
    "defer_backward",
    "ForwardInterface",
    "OutputError",
    "UnidirectionalInterface",
]
