"""Lambda-returns over several windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn, Tensor

from ._horizon import Horizon
from ._kept import Kept
from ._record import Record
from .temporal import TemporalInterface


class LambdaReturns(Horizon):
    """Teaches the gradients of a block of windows, as far as the block sees.

    With ``g`` the synthetic gradient, ``f`` the factor, ``c`` a window's own gradient by its first
    state ``s`` and ``J`` the derivative of its last state by its first one, the target at window
    ``k`` is ``G[k] = c[k] + f J[k]^T ((1 - lambda) g(s[k+1]) + lambda G[k+1])``, and at the block's
    last window ``c[k] + f J[k]^T g(s[k+1])``.

    Args:
        network: The network.
        interfaces: Finds the interfaces by their keys.
        windows: Of a block.
        lambda_: From 0, the bootstrap, to 1.

    Source: Pemberton and Costa 2024: the lambda-weighted synthetic gradient.
    """

    def __init__(
        self,
        network: nn.Module,
        interfaces: Callable[[str], TemporalInterface],
        windows: int,
        lambda_: float,
    ) -> None:
        super().__init__(network, interfaces)
        self._windows = windows
        self._lambda = lambda_
        self._block: list[Record] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_block": []}

    def forget(self) -> None:
        """Let go of what is under way."""
        super().forget()
        self._block = []

    def learn(self, record: Record) -> None:
        """A window has run; when it fills a block, or begins another sequence, learn."""
        block = self._block
        if block and not (record.complete and record.follows(block[-1])):
            self._learn(record.ended)
        self._end(record.ended)
        if record.complete:
            self._block.append(record)
            if len(self._block) == self._windows:
                self._learn({})

    def _learn(self, ended: Mapping[str, Kept]) -> None:
        """From the windows of the block; states that have ``ended`` have no future."""
        block, self._block = self._block, []
        returns = {key: torch.zeros_like(kept.state) for key, kept in ended.items()}
        targets = []
        for record in reversed(block):
            returns = self._through(record, returns)
            targets.append((record, returns))
        for record, goals in reversed(targets):
            lessons = []
            for key, true in goals.items():
                kept, interface = record.taken[key].kept, self._interface(key)
                lessons.append(interface.teach(kept.state, kept.context, true, ~kept.dead))
            interface.learner.teach(lessons)

    def _through(self, record: Record, after: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The returns at a window's first states, from those at its last ones."""
        more: dict[str, Tensor] = {}
        for key, left in record.left.items():
            told = self.told(key, left)
            if key in after:
                known = left.how.factor * after[key].to(told)
                told = (1 - self._lambda) * told + self._lambda * known
            if key in after or left.how.skip:
                more[key] = told - left.sent  # that has been through
        received = dict(record.received)
        if more:
            for key, grad in self.again(record).pull(more).items():
                if key in received:
                    back = record.taken[key].back(grad)
                    received[key] = received[key] + back.to(received[key])
        return received

    def _end(self, ended: Mapping[str, Kept]) -> None:
        for key, kept in ended.items():
            interface = self._interface(key)
            lesson = interface.end_lesson(kept.state, kept.context, ~kept.dead)
            if lesson is not None:
                interface.learner.teach([lesson])
