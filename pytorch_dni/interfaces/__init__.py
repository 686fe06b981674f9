"""Interfaces: what stands at a cut and passes messages across it."""

from ._backward import BackwardInterface
from ._bidirectional import BidirectionalInterface
from ._deferred import backward, defer_backward
from ._forward import ForwardInterface
from ._unidirectional import UnidirectionalInterface

__all__ = [
    "backward",
    "BackwardInterface",
    "BidirectionalInterface",
    "defer_backward",
    "ForwardInterface",
    "UnidirectionalInterface",
]
