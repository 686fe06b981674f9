"""What a window leaves to the next: its last state, and how gradients get across."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        interface: Predicts it.
        joined: The window's last state, in its graph: tensors side by side.
        kept: The same, as what is handed on.
        ended: What an earlier window left that was not handed on, if one did.
    """

    interface: TemporalInterface
    joined: Tensor
    kept: Kept
    ended: Kept | None


class WindowCrossing:
    """A state crosses from one window to the next; its gradient teaches and goes no further.

    Samples whose state was not handed on (what came is not what had been left) had no future.
    """

    def __init__(self, interface: TemporalInterface, kept: Kept, joined: Tensor) -> None:
        self._interface = interface
        self._kept = kept
        self._rows = min(len(joined), len(kept.state))
        same = torch.zeros(len(joined), dtype=torch.bool, device=joined.device)
        if joined.shape[1:] == kept.state.shape[1:]:
            left = kept.state[: self._rows].to(joined)
            same[: self._rows] = (joined[: self._rows] == left).all(1)
        over = torch.zeros_like(same)
        over[: self._rows] = (kept.ends | kept.dead)[: self._rows]
        self.dead = same & over
        self._handed = torch.zeros_like(kept.dead)
        self._handed[: self._rows] = (same & ~over)[: self._rows]
        interface.hand_on(kept.state, kept.context, self._handed, ~kept.dead)

    def value(self, activation: Tensor) -> Tensor:
        """The state."""
        return activation.clone()

    def answer(self, grad: Tensor | None) -> Tensor | None:
        """Nothing."""
        if grad is not None:
            kept, target = self._kept, torch.zeros_like(self._kept.state)
            if grad.shape[1:] == target.shape[1:]:
                handed = self._handed[: self._rows].unsqueeze(1)
                target[: self._rows] = grad[: self._rows].to(target) * handed
            self._interface.learn_from(kept.state, kept.context, target, ~kept.dead, self._handed)
        return None


class Answer:
    """In a backward pass: what the windows' last states get."""

    def __init__(self, ways: list[Way], bp_lambda: Callable[[], float]) -> None:
        self._ways = ways
        self._bp_lambda = bp_lambda

    def __call__(self) -> list[Tensor]:
        for way in self._ways:
            if way.ended is not None:
                way.interface.learn_end(way.ended.state, way.ended.context, ~way.ended.dead)
        bp_lambda = self._bp_lambda()
        return [
            interface.send_back(kept.state, kept.context, kept.ends | kept.dead, None, bp_lambda)
            for interface, _, kept, _ in self._ways
        ]


def plain(kept: Kept | None) -> dict[str, Any] | None:
    """As plain data and tensors."""
    if kept is None:
        return None
    context = None if kept.context is None else kept.context.raw
    return {"state": kept.state, "context": context, "ends": kept.ends, "dead": kept.dead}


def restored(saved: dict[str, Any] | None, device: torch.device) -> Kept | None:
    """From plain data and tensors."""
    if saved is None:
        return None
    raw = saved["context"]
    context = None if raw is None else Context(raw.to(device))
    return Kept(
        saved["state"].to(device), context, saved["ends"].to(device), saved["dead"].to(device)
    )
