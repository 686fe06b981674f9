"""Recurrent nets: synthetic gradients of the future, at the states that windows hand on."""

from .spec import StateSpec
from .temporal import Future, TemporalInterface

__all__ = ["Future", "StateSpec", "TemporalInterface"]
