"""The base class of the wrapper: a module that stands for the network inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TYPE_CHECKING

import torch
from torch import nn, Tensor
from torch.compiler import is_dynamo_compiling

from ._rooms import Rooms
from ._torch import apply_to_tensors, uncompiled
from .cuts import Interface

if TYPE_CHECKING:
    from typing_extensions import Self


class NetworkWrapper(nn.Module):
    """Stands for a network: calls, modes, attributes, moves and checkpoints reach it.

    Args:
        network: The network.
        rooms: The objects behind the wrapper.
    """

    network: nn.Module

    def __init__(self, network: nn.Module, rooms: Rooms) -> None:
        super().__init__()
        self._rooms = rooms
        self.network = network
        self.training = network.training
        rooms.register()

    @property
    def interfaces(self) -> Mapping[str, Interface]:
        """The interfaces by the qualified name of the module whose output they cut.

        Empty until they are built: from ``example_input``, or in the first training forward pass.
        """
        return MappingProxyType({**self._rooms.in_space.by_name, **self._rooms.in_time.interfaces})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network's own forward pass; ``torch.compile`` of the wrapper leaves it as is."""
        if is_dynamo_compiling():
            return self._run_uncompiled(*args, **kwargs)
        return self._run(*args, **kwargs)

    @uncompiled
    def _run_uncompiled(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        rooms, training = self._rooms, self.network.training
        outermost = training and torch.is_grad_enabled() and rooms.thread.enter()
        try:
            if training:
                rooms.register()
            rooms.begin_pass(args, kwargs)
            output = self.network(*args, **kwargs)
            rooms.end_pass()
            return output
        except BaseException as error:
            rooms.drop_pass(error)
            raise
        finally:
            if outermost:
                rooms.thread.leave()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation; in evaluation the network has no hook of the wrapper."""
        super().train(mode)
        if mode:
            self._rooms.register()
        else:
            self._rooms.detach_hooks()
        return self

    def unwrap(self) -> nn.Module:
        """Return the bare network as it was: no hook, attribute or parameter is left in it."""
        self._rooms.close()
        return self.network

    def __getattr__(self, name: str) -> Any:
        """Look up in the network what the wrapper lacks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            network = self.__dict__.get("_modules", {}).get("network")
            if network is None:
                raise
            return getattr(network, name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The synthesizers are no submodules (their parameters are not the user's to train), but
        # they move with the network.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for interface in self.interfaces.values():
            apply_to_tensors(interface, fn)
        self._rooms.learner.move_state()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Return synthesizers, normalisation and optimizer for ``state_dict``, as plain data."""
        return self._rooms.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from a saved state, in a wrapper that has run as well as in a fresh one.

        Raises:
            CheckpointError: It does not fit this network or this wrapper's arguments. Nothing has
                changed.
        """
        self._rooms.load_state_dict(state)
