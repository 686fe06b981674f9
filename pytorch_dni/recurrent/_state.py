"""The state that one window carries to the next, and how gradients cross between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._checkpoint import tensor
from ..context import Context
from ._saved_context import saved_context
from .interface import TemporalInterface


class WindowState:
    """The last state of a window.

    Args:
        state: The state's concatenated tensors, detached: ``(batch, features)``.
        context: What the synthesizer was given in the window.
        finished: Samples, ``(batch,)``, whose sequence had ended before the window; they count in
            nothing.
        ended: Samples whose sequence ended with the window; None for none.
    """

    def __init__(
        self,
        state: Tensor,
        context: Context | None,
        finished: Tensor,
        ended: Tensor | None = None,
    ) -> None:
        self.state = state
        self.context = context
        self.finished = finished
        self.ended = torch.zeros_like(finished) if ended is None else ended

    @property
    def without_future(self) -> Tensor:
        """Samples, ``(batch,)``, that no later window continues."""
        return self.ended | self.finished

    @property
    def valid_mask(self) -> Tensor:
        """Samples, ``(batch,)``, that count."""
        return ~self.finished

    def rows_in(self, joined: Tensor) -> Tensor:
        """Return which samples, ``(rows of joined,)``, of a state are those of this one."""
        same = torch.zeros(len(joined), dtype=torch.bool, device=joined.device)
        if joined.shape[1:] == self.state.shape[1:]:
            rows = min(len(joined), len(self.state))
            same[:rows] = (joined[:rows] == self.state[:rows].to(joined)).all(1)
        return same

    def fits(self, mask: Tensor) -> bool:
        """Return whether a mask has one entry for each sample."""
        return isinstance(mask, Tensor) and mask.shape == self.ended.shape

    def end(self, mask: Tensor | None) -> None:
        """End the sequences of samples; None ends all."""
        everything = torch.ones_like(self.ended)
        self.ended = everything if mask is None else mask.to(self.ended.device, torch.bool)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        context = None if self.context is None else self.context.raw
        masks = {"ended": self.ended, "finished": self.finished}
        return {"state": self.state, "context": context, **masks}

    @classmethod
    def from_state(cls, saved: dict[str, Any], device: torch.device) -> WindowState:
        """Return a window's state that was saved."""
        state = tensor(saved["state"], [None, None])
        if not state.is_floating_point():
            raise TypeError(f"a state holds {state.dtype}")
        masks = (
            tensor(saved[name], [len(state)], torch.bool).to(device)
            for name in ("finished", "ended")
        )
        return cls(state.to(device), saved_context(saved["context"], device), *masks)


class WindowCrossing:
    """Carries a state from one window to the next; its gradient teaches and is not passed back.

    Samples whose state was not carried on (the state that came is another) had no future.

    Args:
        interface: Learns from the gradient.
        before: The last state of the window before.
        joined: The first state of this window, ``(batch, features)``.

    Attributes:
        interface: The interface.
        before: The last state of the window before.
        finished: Samples of this window, ``(batch,)``, whose sequence had ended before.
        continued: Samples of the window before whose state was carried on.
    """

    def __init__(self, interface: TemporalInterface, before: WindowState, joined: Tensor) -> None:
        self.interface = interface
        self.before = before
        self._rows = min(len(joined), len(before.state))
        same = before.rows_in(joined)
        over = torch.zeros_like(same)
        over[: self._rows] = before.without_future[: self._rows]
        self.finished = same & over
        self.continued = torch.zeros_like(before.finished)
        self.continued[: self._rows] = (same & ~over)[: self._rows]

    def apply(self) -> None:
        """Note at the interface that the window has run."""
        before = self.before
        self.interface.begin_window(before.state, before.context, self.continued, before.valid_mask)

    def forward_message(self, activation: Tensor) -> Tensor:
        """Return a copy of the state."""
        return activation.clone()

    def backward_message(self, grad: Tensor | None) -> Tensor | None:
        """Learn from the gradient; no gradient is passed back."""
        if grad is not None:
            self._learn(self.gradient_before(grad))
        return None

    def _learn(self, target: Tensor) -> None:
        before, interface = self.before, self.interface
        interface.learn_from(
            before.state, before.context, target, before.valid_mask, self.continued
        )

    def gradient_before(self, grad: Tensor) -> Tensor:
        """Return the gradient by the state before, from the gradient by the state that came."""
        target = torch.zeros_like(self.before.state)
        if grad.shape[1:] == target.shape[1:]:
            continued = self.continued[: self._rows].unsqueeze(1)
            target[: self._rows] = grad[: self._rows].to(target) * continued
        return target


class FutureInjection:
    """The gradient of the future on its way into a window.

    Args:
        key: Key of the interface.
        interface: Predicts the gradient.
        joined: The window's last state in its graph, ``(batch, features)``.
        state: The same as the state that is carried on.
        ended: The last state of an earlier window that was not carried on, if there is one.
    """

    def __init__(
        self,
        key: str,
        interface: TemporalInterface,
        joined: Tensor,
        state: WindowState,
        ended: WindowState | None,
    ) -> None:
        self.key = key
        self.interface = interface
        self.joined = joined
        self.state = state
        self._ended = ended

    def gradient(self, bp_lambda: float) -> Tensor:
        """In a backward pass, return the gradient that is injected at the window's last state.

        Args:
            bp_lambda: Share of the synthetic gradient that is left out.
        """
        interface, state, ended = self.interface, self.state, self._ended
        if ended is not None:
            update = interface.end_update(ended.state, ended.context, ended.valid_mask)
            if update is not None:
                interface.learner.collect(update)
        return interface.inject(state.state, state.context, state.without_future, None, bp_lambda)
