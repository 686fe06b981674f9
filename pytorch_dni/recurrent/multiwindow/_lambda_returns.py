"""Lambda-returns over several windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor

from ...interfaces._learner import Learner
from .._module import StatefulModule
from .._state import WindowState
from ..interface import TemporalInterface
from ._record import WindowRecord
from ._target import MultiWindowTarget

Dropped = Mapping[str, tuple[TemporalInterface, WindowState]]


class LambdaReturns(MultiWindowTarget):
    """Teaches the gradients of a block of windows, as far as the block reaches.

    With ``g`` the synthetic gradient, ``f`` the factor, ``c`` a window's own gradient by its first
    state ``s`` and ``J`` the derivative of its last state by its first one, the target at window
    ``k`` is ``G[k] = c[k] + f J[k]^T ((1 - lambda) g(s[k+1]) + lambda G[k+1])``, and at the block's
    last window ``c[k] + f J[k]^T g(s[k+1])``.

    Args:
        network: The network.
        modules: Its stateful modules.
        learner: Trains the synthesizers.
        windows: Number of windows of a block.
        lambda_: From 0, the bootstrap, to 1.

    Source: Pemberton and Costa 2024: the lambda-weighted synthetic gradient.
    """

    def __init__(
        self,
        network: nn.Module,
        modules: Sequence[StatefulModule],
        learner: Learner,
        windows: int,
        lambda_: float,
    ) -> None:
        super().__init__(network, modules, learner)
        self._windows = windows
        self._lambda = lambda_
        self._block: list[WindowRecord] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_block": []}

    def forget(self) -> None:
        """Release what is kept of earlier windows."""
        super().forget()
        self._block = []

    def learn(self, record: WindowRecord) -> None:
        """Add a window to the block; learn where it fills the block, or begins a sequence."""
        block = self._block
        if block and not (record.complete and record.continues(block[-1])):
            self._learn_block(record.dropped)
        self._learn_ends(record.dropped)
        if record.complete:
            self._block.append(record)
            if len(self._block) == self._windows:
                self._learn_block({})

    def _learn_block(self, dropped: Dropped) -> None:
        """Learn from the windows of the block; states that were dropped have no future."""
        block, self._block = self._block, []
        returns = {key: torch.zeros_like(state.state) for key, (_, state) in dropped.items()}
        targets = []
        for record in reversed(block):
            returns = self._returns_before(record, returns)
            targets.append((record, returns))
        for record, goals in reversed(targets):
            lessons = []
            for key, true in goals.items():
                crossing = record.taken[key]
                before, interface = crossing.before, crossing.interface
                update = interface.update_towards(
                    before.state, before.context, true, before.valid_mask
                )
                lessons.append(update.apply())
                interface.check_guard()
            self._learner.teach(lessons)

    def _returns_before(
        self, record: WindowRecord, after: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the targets at a window's first states, from those at its last ones."""
        missing: dict[str, Tensor] = {}
        for key, end in record.left.items():
            predicted = self.predicted(end)
            if key in after:
                known = end.injection.factor * after[key].to(predicted)
                predicted = (1 - self._lambda) * predicted + self._lambda * known
            if key in after or end.injection.probes:
                missing[key] = predicted - end.injected  # the rest has been backpropagated
        received = dict(record.received)
        if missing:
            for key, grad in self.replay(record).backpropagate(missing).items():
                if key in received:
                    before = record.taken[key].gradient_before(grad)
                    received[key] = received[key] + before.to(received[key])
        return received

    def _learn_ends(self, dropped: Dropped) -> None:
        for interface, state in dropped.values():
            update = interface.end_update(state.state, state.context, state.valid_mask)
            if update is not None:
                self._learner.teach([update.apply()])
