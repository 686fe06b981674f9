"""Interfaces: what stands at a cut and passes messages across it."""

from .backward import BackwardInterface

__all__ = ["BackwardInterface"]
