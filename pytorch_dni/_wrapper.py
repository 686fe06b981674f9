"""The base class of the wrapper: a module that stands for the network inside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TYPE_CHECKING

import torch
from torch import nn, Tensor
from torch.compiler import is_dynamo_compiling

from ._checks import check_flag
from ._rooms import Rooms
from ._saved import Load, SavedModule
from ._signature import is_signed, signed_forward
from ._torch import apply_to_tensors, uncompiled
from .cuts import Interface
from .errors import DNIError

if TYPE_CHECKING:
    from typing_extensions import Self


class NetworkWrapper(SavedModule):
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
        self._sign_forward()

    def _sign_forward(self) -> None:
        """Give ``forward`` the signature of the network's; in the class there is none for all."""
        method = signed_forward(self, self.network)
        if method is not None:
            self.forward = method  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, Any]:
        # The method's function is found in no module, so that it could not be pickled.
        return {k: v for k, v in self.__dict__.items() if k != "forward" or not is_signed(self, v)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if "forward" not in self.__dict__:
            self._sign_forward()

    @property
    def interfaces(self) -> Mapping[str, Interface]:
        """The interfaces by the qualified name of the module whose output they cut.

        Empty until they are built: from ``example_input``, or in the first training forward pass.
        """
        return MappingProxyType({**self._rooms.in_space.by_name, **self._rooms.in_time.interfaces})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network's own forward pass, which ``torch.compile`` leaves as it is.

        It takes what that takes.
        """
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
            rooms.end_pass(output)
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

    def measure_examples(self, measures: bool = True) -> None:
        """Have ``stats()`` give the cosine similarity of each example of the last lesson, too.

        It is measured from the next backward pass on, until it is stopped, and takes its time.

        Args:
            measures: False stops it.

        Raises:
            DNIError: The parts are not known yet.
        """
        check_flag("measures", measures)
        if not self.interfaces:
            raise DNIError(
                "measure_examples() needs parts that are known: call it after a training forward "
                "pass, or give example_input"
            )
        for interface in self.interfaces.values():
            interface.measure_examples(measures)

    def __getattr__(self, name: str) -> Any:
        """Look up in the network what the wrapper lacks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            own = inspect.getattr_static(type(self), name, None)
            if isinstance(own, property):
                return own.__get__(self)  # it has raised, and does so again
            network = self.__dict__.get("_modules", {}).get("network")
            if network is None:
                raise
            return getattr(network, name)

    # Python looks these up in the class alone.

    def __bool__(self) -> bool:
        return True  # and not whether its length is zero

    def __len__(self) -> int:
        return len(self.network)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Any:
        return self.network[index]  # type: ignore[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.network)  # type: ignore[call-overload, no-any-return]

    def __contains__(self, item: object) -> bool:
        return item in self.network  # type: ignore[operator]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The synthesizers are no submodules (their parameters are not the user's to train), but
        # they move with the network.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for interface in self.interfaces.values():
            apply_to_tensors(interface, fn)
        self._rooms.learner.move_state()
        return self

    def saved_head(self) -> dict[str, int | float]:
        """Return the numbers of the state that are there always, by name."""
        return self._rooms.saved_head()

    def saved_tree(self) -> dict[str, Any] | None:
        """Return synthesizers, normalisation and optimizer; None before there are any."""
        return self._rooms.saved_tree()

    def prepare_load(self, head: Mapping[str, Any], tree: Any) -> Load:
        """Read a saved state, for a wrapper that has run as well as for a fresh one.

        Raises:
            CheckpointError: It does not fit this network or this wrapper's arguments.
        """
        return self._rooms.prepare_load(head, tree)

    def saved_as(self) -> str:
        """Return what error messages call the wrapper."""
        return "this wrapper"

    def remedy(self, state_dict: Mapping[str, Any]) -> str:
        """Return what an error message says to do about a state that does not fit."""
        if state_dict.keys() & self.network.state_dict().keys():
            return (
                ". This is a state of the network without the wrapper: load it by "
                "net.network.load_state_dict(state)"
            )
        return ""
