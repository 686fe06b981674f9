"""What passes each cut backward in a step: BP(lambda) and sparse updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ..errors import DNIError
from ..interfaces._gradient_crossing import CutPolicy
from ..interfaces._learner import Learner
from ._schedule import Schedule

BPLambda: TypeAlias = "float | Callable[[int], float]"
ExactEvery: TypeAlias = "int | Callable[[int], int]"
_OUTPUT = ""  # stands for the cut at the end of the last part: the network's output


class UpdatePolicy:
    """What passes each cut in the present step.

    Args:
        bp_lambda: Share of the true gradient, or a function of the step.
        schedule: Which parts learn in a step.
        learner: Counts the steps.
        exact_every: One step of so many has exact gradients, or a function of the step.

    Raises:
        DNIError: ``bp_lambda`` or ``exact_every`` is out of range, or both are given.
    """

    def __init__(
        self,
        bp_lambda: BPLambda,
        schedule: Schedule,
        learner: Learner,
        exact_every: ExactEvery = 1,
    ) -> None:
        _check_every(exact_every)
        self._exact_every = exact_every
        self.set_bp_lambda(bp_lambda)
        self.schedule = schedule
        self._learner = learner

    @property
    def skips_exact(self) -> bool:
        """Whether there are steps in which no gradient crosses a cut."""
        return self._exact_every != 1

    def is_exact_step(self) -> bool:
        """Return whether the present step has the gradients of backpropagation.

        Raises:
            DNIError: The user's function of the step returns no positive integer.
        """
        every = self._exact_every
        if callable(every):
            every = every(self._learner.steps)
            _check_number(every)
        return self._learner.steps % every == 0

    @property
    def bp_lambda(self) -> BPLambda:
        """Share of the true gradient, from 0 to 1, or a function of the step."""
        return self._bp_lambda

    def set_bp_lambda(self, value: BPLambda) -> None:
        """Set the share of the true gradient.

        Raises:
            DNIError: It is out of range.
        """
        _check_lambda(value)
        if self.skips_exact and (callable(value) or value):
            raise DNIError(
                "bp_lambda mixes in true gradients, which are not computed in most steps with "
                "exact_every: take one of the two"
            )
        self._bp_lambda = value

    def current_lambda(self) -> float:
        """Return ``bp_lambda`` of the present step; with ``exact_every``, that of exact steps.

        Raises:
            DNIError: The user's function of the step returns something else.
        """
        if self.skips_exact:
            return 1.0
        value = self._bp_lambda
        if not callable(value):
            return value
        found = value(self._learner.steps)
        if callable(found):
            raise DNIError(f"bp_lambda must return a number from 0 to 1, got {found!r}")
        _check_lambda(found)
        return found

    def at_cut(self, name: str) -> CutPolicy:
        """Return what passes a cut in the present step."""
        return CutPolicy(self.current_lambda(), self.part_learns(name))

    def part_learns(self, name: str) -> bool:
        """Return whether the part that ends at a cut learns in the present step."""
        return self.schedule.part_learns(name, self._learner.steps)

    def last_part_learns(self) -> bool:
        """Return whether the part that ends at the network's output learns in this step."""
        return self.part_learns(_OUTPUT)

    def state_dict(self) -> dict[str, int | float]:
        """Return the state as numbers; NaN stands for a function of the step."""
        value = self._bp_lambda
        return {
            "seed": self.schedule.state_dict(),
            "bp_lambda": math.nan if callable(value) else float(value),
        }

    def prepare_load(self, state: Mapping[str, Any]) -> Callable[[], None]:
        """Read a saved state, and return a function that loads it; it cannot fail.

        A function of the step is kept.

        Raises:
            DNIError: The saved share is out of range.
        """
        load_schedule = self.schedule.prepare_load(state["seed"])
        saved = float(state["bp_lambda"])
        if not math.isnan(saved):
            _check_lambda(saved)

        def load() -> None:
            load_schedule()
            if not math.isnan(saved) and not callable(self._bp_lambda):
                self._bp_lambda = saved

        return load


def _check_lambda(value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    if not callable(value) and not number:
        raise DNIError(f"bp_lambda must be a number from 0 to 1, or a function, got {value!r}")


def _check_every(value: object) -> None:
    if not callable(value):
        _check_number(value)


def _check_number(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DNIError(
            f"exact_every must be a positive integer, or a function that returns one, got {value!r}"
        )
