"""A window that has run: what it was given, and how gradients get through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TYPE_CHECKING

import torch
from torch import nn, Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from .._tree import mapped
from ._kept import Kept, Way, WindowCrossing
from ._sent import Sent
from .spec import join, split

if TYPE_CHECKING:
    from ._site import Site


class Left(NamedTuple):
    """What a window left at one of its modules.

    Attributes:
        kept: Its last state.
        sent: What was sent back into it, ``(batch, features)``.
        how: By what.
    """

    kept: Kept
    sent: Tensor
    how: Sent

    @property
    def alive(self) -> Tensor:
        """Samples, ``(batch, 1)``, that have a future."""
        return ~(self.kept.ends | self.kept.dead).unsqueeze(1)


@dataclass
class Record:
    """A window.

    Attributes:
        args: What the network was called with; copies, cut from any graph.
        kwargs: The keywords of that call.
        random: The states of the random numbers before it, the CPU's and those of devices.
        taken: By interface, how the window took its first state.
        received: The gradients that came to those states.
        left: By interface, what the window left.
        ended: What the window before left, where it was not handed on.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    random: tuple[Tensor, list[int], list[Tensor]]
    taken: dict[str, WindowCrossing] = field(default_factory=dict)
    received: dict[str, Tensor] = field(default_factory=dict)
    left: dict[str, Left] = field(default_factory=dict)
    ended: dict[str, Kept] = field(default_factory=dict)

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Record:
        """A window that begins."""
        given, named = mapped((args, kwargs), lambda tensor: tensor.detach().clone())
        return cls(given, named, (torch.get_rng_state(), *get_device_states(args, kwargs)))

    def receive(self, key: str, true: Tensor) -> None:
        """The gradient has come to a first state."""
        self.received[key] = true

    def note(self, way: Way, sent: Tensor) -> None:
        """A last state gets its gradient."""
        self.left[way.key] = Left(way.kept, sent, way.interface.sent)

    @property
    def complete(self) -> bool:
        """Whether it was backpropagated from end to end."""
        return bool(self.taken) and self.taken.keys() == self.received.keys() and bool(self.left)

    def follows(self, before: Record) -> bool:
        """Whether it goes on with all that another window left."""
        return self.taken.keys() == before.left.keys() and all(
            crossing.kept is before.left[key].kept for key, crossing in self.taken.items()
        )


class Rerun:
    """Runs a window once more, from its first states to its last ones.

    With the parameters as they are now; buffers and random numbers stay as they are.

    Args:
        network: The network, whose hooks hand states in and out.
        record: The window.

    Attributes:
        first: The first states, ``(batch, features)``: leaves of the graph.
        last: The last ones, in the graph.
    """

    def __init__(self, network: nn.Module, record: Record) -> None:
        self._record = record
        self._calls: dict[str, int] = {}
        self.first: dict[str, Tensor] = {}
        self.last: dict[str, Tensor] = {}
        self._states: dict[str, tuple[Any, int]] = {}
        self._network = network

    def run(self) -> Rerun:
        """Run; the network's hooks are to call :meth:`take` and :meth:`give`."""
        buffers = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
        cpu, devices, states = self._record.random
        try:
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                torch.set_rng_state(cpu)
                set_device_states(devices, states)
                self._network(*self._record.args, **self._record.kwargs)
                joined = {key: join(*state) for key, state in self._states.items()}
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
        self.last = {key: state for key, state in joined.items() if state.requires_grad}
        return self

    def take(
        self, site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """A module is called: its first state is where gradients come out."""
        state = site.spec.taken(args, kwargs)
        if self._calls.get(site.key, 0) or state is None:
            return None
        leaf = join(state, site.spec.batch_dim).detach().requires_grad_()
        self.first[site.key] = leaf
        return site.spec.given(args, kwargs, split(leaf, state, site.spec.batch_dim))

    def give(self, site: Site, output: Any) -> None:
        """A module has returned a state."""
        self._calls[site.key] = self._calls.get(site.key, 0) + 1
        self._states[site.key] = site.spec.returned(site.name, output), site.spec.batch_dim

    def pull(self, gradients: Mapping[str, Tensor], retain: bool = False) -> dict[str, Tensor]:
        """From gradients by the last states to those by the first ones."""
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
