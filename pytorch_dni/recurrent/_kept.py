"""What a window leaves to the next: its last state, and how gradients get across."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..context import Context
from .temporal import TemporalInterface


@dataclass
class Kept:
    """What a window left behind.

    Attributes:
        state: Its last state's tensors side by side, ``(batch, features)``.
        context: What the synthesizer was given with it.
        ends: Samples, ``(batch,)``, whose sequence ended with the window.
        dead: Samples whose sequence had ended before; they count in nothing.
    """

    state: Tensor
    context: Context | None
    ends: Tensor
    dead: Tensor


class Way(NamedTuple):
    """How the gradient of the future gets into a window.

    Attributes:
        key: Of the interface.
        interface: Predicts it.
        joined: The window's last state, in its graph: tensors side by side.
        kept: The same, as what is handed on.
        ended: What an earlier window left that was not handed on, if one did.
    """

    key: str
    interface: TemporalInterface
    joined: Tensor
    kept: Kept
    ended: Kept | None


class WindowCrossing:
    """A state crosses from one window to the next; its gradient teaches and goes no further.

    Samples whose state was not handed on (what came is not what had been left) had no future.

    Args:
        interface: Learns from the gradient.
        kept: What the window before left.
        joined: What came, ``(batch, features)``.
        receive: Takes the gradient instead, for lessons that come later.

    Attributes:
        kept: What the window before left.
        dead: Samples of the window, ``(batch,)``, whose sequence had ended before.
    """

    def __init__(
        self,
        interface: TemporalInterface,
        kept: Kept,
        joined: Tensor,
        receive: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.interface = interface
        self.kept = kept
        self._receive = receive
        self._rows = min(len(joined), len(kept.state))
        same = torch.zeros(len(joined), dtype=torch.bool, device=joined.device)
        if joined.shape[1:] == kept.state.shape[1:]:
            left = kept.state[: self._rows].to(joined)
            same[: self._rows] = (joined[: self._rows] == left).all(1)
        over = torch.zeros_like(same)
        over[: self._rows] = (kept.ends | kept.dead)[: self._rows]
        self.dead = same & over
        self.handed = torch.zeros_like(kept.dead)
        self.handed[: self._rows] = (same & ~over)[: self._rows]
        interface.hand_on(kept.state, kept.context, self.handed, ~kept.dead)

    def value(self, activation: Tensor) -> Tensor:
        """The state."""
        return activation.clone()

    def answer(self, grad: Tensor | None) -> Tensor | None:
        """Nothing."""
        if grad is None:
            return None
        kept, target = self.kept, self.back(grad)
        if self._receive is None:
            self.interface.learn_from(kept.state, kept.context, target, ~kept.dead, self.handed)
        else:
            true = self.interface.take_in(kept.state, target, ~kept.dead, self.handed)
            self._receive(true)
        return None

    def back(self, grad: Tensor) -> Tensor:
        """By the state that was left, from the gradient by the one that came."""
        target = torch.zeros_like(self.kept.state)
        if grad.shape[1:] == target.shape[1:]:
            handed = self.handed[: self._rows].unsqueeze(1)
            target[: self._rows] = grad[: self._rows].to(target) * handed
        return target


class Answer:
    """In a backward pass: what the windows' last states get.

    Args:
        ways: How it gets there.
        bp_lambda: Tells how much of it stays away.
        note: Is told of each of the ways what was sent.
    """

    def __init__(
        self,
        ways: list[Way],
        bp_lambda: Callable[[], float],
        note: Callable[[Way, Tensor], None] | None = None,
    ) -> None:
        self._ways = ways
        self._bp_lambda = bp_lambda
        self._note = note

    def __call__(self) -> list[Tensor]:
        bp_lambda = self._bp_lambda()
        sent = []
        for way in self._ways:
            interface, kept, ended = way.interface, way.kept, way.ended
            if ended is not None:
                interface.learn_end(ended.state, ended.context, ~ended.dead)
            over = kept.ends | kept.dead
            sent.append(interface.send_back(kept.state, kept.context, over, None, bp_lambda))
            if self._note is not None:
                self._note(way, sent[-1])
        return sent
