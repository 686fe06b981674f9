"""What a critic learns from: the losses that were observed after a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._checkpoint import listed, mapping, number, tensor
from .._normalization import RunningScale
from ..context import Context
from ..interfaces._pending import Lesson
from ..synthesizers import Critic_DNI
from ._saved_context import saved_context


class _StateReturn:
    """A state, and the discounted sum of the losses of the windows after it, so far."""

    def __init__(
        self,
        state: Tensor,
        context: Context | None,
        continued: Tensor,
        valid_mask: Tensor,
        sum: Tensor | None = None,
        age: int = 0,
    ) -> None:
        self.state = state
        self.context = context
        self.continued = continued
        self.valid_mask = valid_mask
        zeros = torch.zeros(len(state), dtype=state.dtype, device=state.device)
        self.sum = zeros if sum is None else sum
        self.age = age

    def stop(self, continued: Tensor | None = None) -> None:
        """Add no further losses, except for samples that continue."""
        if continued is not None and self.continued.shape == continued.shape:
            self.continued = self.continued & continued
        else:
            self.continued = torch.zeros_like(self.continued)

    def add(self, losses: Tensor, discount: float) -> None:
        """Add the losses of one more window."""
        if losses.shape == self.sum.shape:
            counted = losses.detach().to(self.sum) * self.continued
            self.sum = self.sum + discount**self.age * counted
        self.age += 1

    def keep(self) -> Callable[[], None]:
        """Return what restores the sum, and all else, as they are now."""
        return partial(vars(self).update, dict(vars(self)))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        context = None if self.context is None else self.context.raw
        return {**self.__dict__, "context": context}

    @classmethod
    def from_state(cls, saved: Mapping[str, Any], like: Tensor) -> _StateReturn:
        """Return a state that was saved."""
        state = tensor(saved["state"], [None, None], like.dtype).to(like.device)
        batch = [len(state)]
        context = saved_context(saved["context"], like.device)
        continued, valid_mask = (
            tensor(saved[name], batch, torch.bool).to(like.device)
            for name in ("continued", "valid_mask")
        )
        sum = tensor(saved["sum"], batch, like.dtype).to(like.device)
        return cls(state, context, continued, valid_mask, sum, number(saved["age"]))


class ObservedLosses:
    """Collects discounted sums of losses over a critic's horizon, sample by sample.

    Args:
        critic: The critic.
        like: A tensor of the critic's type and device.

    Attributes:
        scale: Running root mean square of the sums: the critic's unit.
    """

    def __init__(self, critic: Critic_DNI, like: Tensor) -> None:
        self._critic = critic
        self.scale = RunningScale(like)
        self._open: list[_StateReturn] = []
        self._complete: list[_StateReturn] = []

    def begin_window(
        self, state: Tensor, context: Context | None, continued: Tensor, valid_mask: Tensor
    ) -> None:
        """Begin a window with a state: its losses belong to the states before, too.

        Args:
            state: The last state of the window before, ``(batch, features)``.
            context: The context of that window.
            continued: Samples, ``(batch,)``, that continue with it.
            valid_mask: Samples that count.
        """
        for entry in self._open:
            entry.stop(continued)
        self._open.append(_StateReturn(state, context, continued, valid_mask))

    def begin_sequence(self) -> None:
        """Begin a window without a state: no loss after this belongs to earlier states."""
        for entry in self._open:
            entry.stop()

    def observe(self, losses: Tensor) -> None:
        """Add the losses of the window that has begun, ``(batch,)``."""
        for entry in self._open:
            entry.add(losses, self._critic.discount)
        horizon = self._critic.horizon
        self._complete += [entry for entry in self._open if entry.age >= horizon]
        self._open = [entry for entry in self._open if entry.age < horizon]

    def lessons(self, join: Callable[[Tensor, Context | None], Tensor]) -> list[Lesson]:
        """Return what the critic learns from complete sums; call under ``no_grad``.

        Args:
            join: Joins a state and its context.
        """
        complete, self._complete = self._complete, []
        lessons = []
        for entry in complete:
            weight = entry.valid_mask.to(entry.sum) / entry.valid_mask.sum().clamp_min(1)
            update = self.scale.preview(entry.sum * (weight * len(weight)).sqrt())
            self.scale.apply(update)
            with torch.enable_grad():
                output, _ = self._critic(join(entry.state, entry.context), None)
            target = entry.sum / self.scale.value
            error = 2 * (output.detach().squeeze(1) - target) * weight
            lessons.append(Lesson(None, output, error.unsqueeze(1), update.square))
        return lessons

    def keep(self) -> Callable[[], None]:
        """Return what restores the losses that are known now, and the unit."""
        sums = [entry.keep() for entry in (*self._open, *self._complete)]
        return partial(self._restore, [*self._open], [*self._complete], sums, self.scale.keep())

    def _restore(
        self,
        open_: list[_StateReturn],
        complete: list[_StateReturn],
        sums: list[Callable[[], None]],
        restore_scale: Callable[[], None],
    ) -> None:
        self._open, self._complete = open_, complete
        restore_scale()
        for restore in sums:
            restore()

    def to(self, like: Tensor) -> None:
        """Take the type and device of another tensor; sums that are not learned yet are dropped."""
        self.scale.to(like)
        self._open, self._complete = [], []

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return {
            "scale": self.scale.state_dict(),
            "open": [entry.state_dict() for entry in self._open],
            "complete": [entry.state_dict() for entry in self._complete],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        like = next(self._critic.parameters())
        self._open, self._complete = (
            [_StateReturn.from_state(mapping(saved), like) for saved in listed(state[name])]
            for name in ("open", "complete")
        )
        self.scale.load_state_dict(state["scale"])
