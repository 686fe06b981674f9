"""The record of a window: what it was given, and which gradients came to its states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states

from ..._tree import map_tensors
from .._given_up import AppliedWindow
from .._stability import Injection
from .._state import FutureInjection, WindowCrossing, WindowState
from ..interface import TemporalInterface


class WindowEnd(NamedTuple):
    """What a window left at one of its modules.

    Attributes:
        interface: The interface of the module.
        state: The last state.
        injected: The gradient that was injected at it, ``(batch, features)``.
        injection: How that gradient was made.
    """

    interface: TemporalInterface
    state: WindowState
    injected: Tensor
    injection: Injection


@dataclass
class WindowRecord:
    """A window.

    Attributes:
        args: Arguments of the network; detached copies.
        kwargs: Keywords of that call.
        random: States of the random numbers before it, the CPU's and those of devices.
        taken: By key, how the window took its first state.
        received: By key, the gradient that came to that state.
        left: By key, what the window left.
        dropped: By key, the last state of the window before and its interface, where that state
            was not carried on.
        window: The window as it was applied; None where its forward pass has not ended.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    random: tuple[Tensor, list[int], list[Tensor]]
    taken: dict[str, WindowCrossing] = field(default_factory=dict)
    received: dict[str, Tensor] = field(default_factory=dict)
    left: dict[str, WindowEnd] = field(default_factory=dict)
    dropped: dict[str, tuple[TemporalInterface, WindowState]] = field(default_factory=dict)
    window: AppliedWindow | None = None

    @classmethod
    def begin(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> WindowRecord:
        """Return the record of a window that begins with these arguments."""
        args, kwargs = map_tensors((args, kwargs), lambda tensor: tensor.detach().clone())
        return cls(args, kwargs, (torch.get_rng_state(), *get_device_states(args, kwargs)))

    def mark_run(self, window: AppliedWindow) -> None:
        """Record that the forward pass has ended."""
        self.window = window

    def add_injection(self, injection: FutureInjection, injected: Tensor) -> None:
        """Record the gradient that was injected at a last state."""
        interface = injection.interface
        end = WindowEnd(interface, injection.state, injected, interface.injection)
        self.left[injection.key] = end

    @property
    def complete(self) -> bool:
        """Whether the window was backpropagated from end to end, and nothing raised."""
        if self.window is None or not self.window.ended:
            return False
        return bool(self.taken) and self.taken.keys() == self.received.keys() and bool(self.left)

    def continues(self, before: WindowRecord) -> bool:
        """Return whether the window began with all states that another window left."""
        return self.taken.keys() == before.left.keys() and all(
            crossing.before is before.left[key].state for key, crossing in self.taken.items()
        )


class RecordedCrossing(WindowCrossing):
    """Carries a state into a window, and records the gradient that comes to it.

    Args:
        interface: Measures the gradient.
        before: The last state of the window before.
        joined: The first state of this window, ``(batch, features)``.
        record: The record of this window.
        key: Key of the interface.
    """

    def __init__(
        self,
        interface: TemporalInterface,
        before: WindowState,
        joined: Tensor,
        record: WindowRecord,
        key: str,
    ) -> None:
        super().__init__(interface, before, joined)
        self._record = record
        self._key = key

    def _learn(self, target: Tensor) -> None:
        before, interface = self.before, self.interface
        true = interface.true_gradient(before.state, target, before.valid_mask, self.continued)
        self._record.received[self._key] = true
