"""Sparse updates: which parts of a network learn in a step."""

from __future__ import annotations

import random

from .errors import DNIError


class Schedule:
    """Lets each part learn in a random share of the steps, independently of the others.

    Draws are a function of seed, step and part: nothing is kept but the seed, and the user's
    random numbers stay those of the bare network.

    Args:
        probability: The share, above 0 and at most 1.
        seed: Of the draws.

    Raises:
        DNIError: The share is none.

    Source: Jaderberg et al. 2017, section 3.3: sparse updates.
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
        draw = random.Random(f"{self.seed}/{step}/{part}").random()
        return not self.sparse or draw < self.probability
