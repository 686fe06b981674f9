"""Running a window once more, to see how gradients pass through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor
from torch.utils.checkpoint import set_device_states

from ...cuts._hooks import Handles
from .._module import CallArguments, StatefulModule
from ..spec import join_state, split_state
from ._record import WindowRecord


class Replay:
    """Runs a window once more, from its first states to its last ones.

    It uses the parameters as they are now; buffers and random numbers stay as they are.

    Args:
        network: The network.
        modules: Its stateful modules.
        record: The window.

    Attributes:
        first: By key, the first state, ``(batch, features)``: a leaf of the graph.
        last: By key, the last state, in the graph.
    """

    def __init__(
        self, network: nn.Module, modules: Sequence[StatefulModule], record: WindowRecord
    ) -> None:
        self._network = network
        self._modules = modules
        self._record = record
        self._calls: dict[str, int] = {}
        self._states: dict[str, tuple[Any, int]] = {}
        self.first: dict[str, Tensor] = {}
        self.last: dict[str, Tensor] = {}

    def run(self) -> Replay:
        """Run the window."""
        handles = Handles()
        for stateful in self._modules:
            handles.before_forward(stateful.module, self._take, stateful)
            handles.after_forward(stateful.module, self._give, stateful)
        buffers = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
        cpu, devices, states = self._record.random
        try:
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                torch.set_rng_state(cpu)
                set_device_states(devices, states)
                self._network(*self._record.args, **self._record.kwargs)
                joined = {key: join_state(*state) for key, state in self._states.items()}
        finally:
            handles.remove()
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
        self.last = {key: state for key, state in joined.items() if state.requires_grad}
        return self

    def _take(
        self,
        stateful: StatefulModule,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> CallArguments | None:
        """Make the first state that a module takes a leaf of the graph."""
        spec, state = stateful.spec, stateful.spec.state_in(args, kwargs)
        if self._calls.get(stateful.key, 0) or state is None:
            return None
        leaf = join_state(state, spec.batch_dim).detach().requires_grad_()
        self.first[stateful.key] = leaf
        return spec.with_state(args, kwargs, split_state(leaf, state, spec.batch_dim))

    def _give(
        self, stateful: StatefulModule, module: nn.Module, args: tuple[Any, ...], output: Any
    ) -> None:
        """Note the state that a module has returned."""
        key, spec = stateful.key, stateful.spec
        self._calls[key] = self._calls.get(key, 0) + 1
        self._states[key] = spec.state_returned(stateful.name, output), spec.batch_dim

    def backpropagate(
        self, gradients: Mapping[str, Tensor], retain: bool = False
    ) -> dict[str, Tensor]:
        """Return the gradients by the first states, from gradients by the last ones."""
        last = self.last
        keys = [key for key in gradients if key in last]
        if not keys or not self.first:
            return {key: torch.zeros_like(leaf) for key, leaf in self.first.items()}
        grads = torch.autograd.grad(
            [last[key] for key in keys],
            [*self.first.values()],
            [gradients[key].to(last[key]) for key in keys],
            retain_graph=retain,
            allow_unused=True,
        )
        return {
            key: torch.zeros_like(leaf) if grad is None else grad
            for (key, leaf), grad in zip(self.first.items(), grads, strict=True)
        }
