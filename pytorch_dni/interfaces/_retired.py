"""Interfaces that a saved state has replaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ._learner import Learner


class Trainable(Protocol):
    """An interface, as its learner sees it."""

    def set_learner(self, learner: Learner) -> None:
        """Have another learner train the synthesizers."""


def retire(interfaces: Iterable[Trainable], learner: Learner) -> None:
    """Take interfaces away from a learner: what a pending pass teaches them counts no more."""
    apart = learner.new()
    for interface in interfaces:
        interface.set_learner(apart)
