"""Recurrent nets: synthetic gradients of the future, at the states that windows hand on."""

from ._future import Future
from .critic import CriticInterface
from .spec import StateSpec
from .temporal import TemporalInterface

__all__ = ["CriticInterface", "Future", "StateSpec", "TemporalInterface"]
