"""Sparse updates: which parts of a network learn in a step."""

from __future__ import annotations

import random
from typing import Protocol

from torch import Tensor

from .errors import DNIError, SynthesizerError
from .interfaces._backward import Terms
from .interfaces._learner import Learner

_MOST_STEPS = 10


class Register(Protocol):
    """What is asked of the register of a network's cuts."""

    learner: Learner

    def terms(self, name: str) -> Terms:
        """On which terms a gradient crosses a cut in this step."""


class Schedule:
    """Lets each part learn in a random share of the steps, independently of the others.

    Draws are a function of seed, step and part: nothing is kept but the seed, and the user's
    random numbers stay those of the bare network.

    Args:
        probability: The share, above 0 and at most 1.
        seed: Of the draws.

    Raises:
        DNIError: The share is none.

    Source: Jaderberg et al. 2017: sparse updates.
    """

    def __init__(self, probability: float, seed: int) -> None:
        number = isinstance(probability, (int, float)) and not isinstance(probability, bool)
        if not number or not 0 < probability <= 1:
            raise DNIError(f"update_probability must be above 0 and at most 1, got {probability!r}")
        self.probability = float(probability)
        self.seed = seed

    @property
    def sparse(self) -> bool:
        """Whether any part ever leaves out a step."""
        return self.probability < 1

    def learns(self, part: str, step: int) -> bool:
        """Whether a part, by the name of the cut behind it, learns in a step."""
        if not self.sparse:
            return True
        return random.Random(f"{self.seed}/{step}/{part}").random() < self.probability

    def repeats(self, grad_steps: int | None, regresses: bool) -> int:
        """How many steps synthesizers take on a lesson: what is asked for, or what makes up.

        Raises:
            SynthesizerError: It is no number of steps.
        """
        if grad_steps is None:
            # A tenth of the updates (MNIST, three cuts, labels as context, five epochs): 89 % with
            # one step on each lesson, 95 % with eight. Local losses were the worse for it (95.6 and
            # 94.9 %): they learn while the part behind sleeps, too.
            if not regresses:
                return 1
            return min(int(1 / self.probability + 0.5), _MOST_STEPS)
        if not isinstance(grad_steps, int) or isinstance(grad_steps, bool) or grad_steps < 1:
            raise SynthesizerError(f"grad_steps must be a positive integer, got {grad_steps!r}")
        return grad_steps


class TermsOf:
    """Asks for a cut's terms when the gradient comes."""

    def __init__(self, cuts: Register, name: str) -> None:
        self._cuts = cuts
        self._name = name

    def __call__(self) -> Terms:
        return self._cuts.terms(self._name)


class LastPart:
    """The network's output crosses as it is, its gradient where the part behind all cuts learns."""

    def __init__(self, cuts: Register) -> None:
        self._cuts = cuts

    def value(self, activation: Tensor) -> Tensor:
        """The output."""
        return activation.clone()

    def answer(self, grad: Tensor | None) -> Tensor | None:
        """The gradient, or none."""
        # The step counts, even if no cut is reached in it.
        self._cuts.learner.collect(None)
        return grad if self._cuts.terms("").wanted else None
