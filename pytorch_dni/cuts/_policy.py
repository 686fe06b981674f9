"""What passes each cut backward in a step: BP(lambda) and sparse updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ..errors import DNIError
from ..interfaces._backward import CutPolicy
from ..interfaces._learner import Learner
from ._schedule import Schedule

BPLambda: TypeAlias = "float | Callable[[int], float]"
_OUTPUT = ""  # stands for the cut at the end of the last part: the network's output


class UpdatePolicy:
    """What passes each cut in the present step.

    Args:
        bp_lambda: Share of the true gradient, or a function of the step.
        schedule: Which parts learn in a step.
        learner: Counts the steps.

    Raises:
        DNIError: ``bp_lambda`` is out of range.
    """

    def __init__(self, bp_lambda: BPLambda, schedule: Schedule, learner: Learner) -> None:
        self.set_bp_lambda(bp_lambda)
        self.schedule = schedule
        self._learner = learner

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
        self._bp_lambda = value

    def current_lambda(self) -> float:
        """Return ``bp_lambda`` of the present step."""
        value = self._bp_lambda
        return value(self._learner.steps) if callable(value) else value

    def at_cut(self, name: str) -> CutPolicy:
        """Return what passes a cut in the present step."""
        return CutPolicy(self.current_lambda(), self.part_learns(name))

    def part_learns(self, name: str) -> bool:
        """Return whether the part that ends at a cut learns in the present step."""
        return self.schedule.part_learns(name, self._learner.steps)

    def last_part_learns(self) -> bool:
        """Return whether the part that ends at the network's output learns in this step."""
        return self.part_learns(_OUTPUT)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data; a function of the step is not saved."""
        value = self._bp_lambda
        return {
            "seed": self.schedule.state_dict(),
            "bp_lambda": None if callable(value) else float(value),
        }

    def prepare_load(self, state: dict[str, Any]) -> Callable[[], None]:
        """Read a saved state, and return a function that loads it; it cannot fail.

        A function of the step is kept.

        Raises:
            DNIError: The saved share is out of range.
        """
        load_schedule = self.schedule.prepare_load(state["seed"])
        saved = state["bp_lambda"]
        if saved is not None:
            _check_lambda(saved)

        def load() -> None:
            load_schedule()
            if saved is not None and not callable(self._bp_lambda):
                self._bp_lambda = saved

        return load


def _check_lambda(value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    if not callable(value) and not number:
        raise DNIError(f"bp_lambda must be a number from 0 to 1, or a function, got {value!r}")
