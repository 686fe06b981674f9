"""Recurrent nets: synthetic gradients of the future, at the states that windows carry on."""

from .critic import CriticInterface
from .future import FutureGradient
from .interface import TemporalInterface
from .spec import StateSpec

__all__ = ["CriticInterface", "FutureGradient", "StateSpec", "TemporalInterface"]
