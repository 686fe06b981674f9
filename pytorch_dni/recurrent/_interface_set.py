"""The interfaces at the states of a network: built, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor

from .._checkpoint import building, loading, mapping, reading
from .._tree import TensorSpec
from ..context import current_context
from ..errors import CheckpointError
from ..interfaces._learner import Learner
from ..interfaces._retired import retire
from ._factory import TemporalFactory
from ._module import StatefulModule
from .interface import TemporalInterface


class StateInterfaces:
    """The interfaces of a network's stateful modules, by key.

    Args:
        network: The network.
        modules: Its stateful modules.
        factory: Builds interfaces.
        check: Raises where an interface cannot learn what it is to learn.
        learner: Trains the synthesizers.
    """

    def __init__(
        self,
        network: nn.Module,
        modules: Sequence[StatefulModule],
        factory: TemporalFactory,
        check: Callable[[TemporalInterface], None],
        learner: Learner,
    ) -> None:
        self._network = network
        self._modules = modules
        self._factory = factory
        self._check = check
        self._learner = learner
        self._interfaces: dict[str, TemporalInterface] = {}
        self._specs: dict[str, TensorSpec] = {}  # the states that interfaces were built for

    @property
    def by_key(self) -> Mapping[str, TemporalInterface]:
        """The interfaces by key."""
        return self._interfaces

    def build_missing(self, states: Mapping[str, Tensor]) -> None:
        """Build interfaces for states that have none, once all states fit the context.

        Args:
            states: The last states of a window, by key.

        Raises:
            DNIError: The context or a state does not fit. Nothing has changed.
        """
        context = current_context()
        built: dict[str, TemporalInterface] = {}
        for stateful in self._modules:
            state, key = states.get(stateful.key), stateful.key
            if state is None:
                continue
            interface = self._interfaces.get(key)
            if interface is None:
                batch_dim = stateful.spec.batch_dim
                interface = self._factory.build(key, stateful.module, state, batch_dim)
                self._check(interface)
                built[key] = interface
            interface.check_takes(context)
            interface.check(state, context)
        for key, interface in built.items():
            self._learner.add(interface.trained(), key)
            interface.set_learner(self._learner)
            self._interfaces[key] = interface
            self._specs[key] = TensorSpec.of(states[key])

    def clear(self) -> None:
        """Remove all interfaces."""
        self._interfaces.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        modules = {stateful.key: stateful for stateful in self._modules}
        return {
            key: {
                "state": {**interface.state_dict()},
                "spec": self._specs[key].state_dict(),
                **modules[key].state_dict(),
            }
            for key, interface in self._interfaces.items()
        }

    def prepare_load(
        self, state: Mapping[str, Any]
    ) -> tuple[dict[str, TemporalInterface], Callable[[], None]]:
        """Build the interfaces of a saved state, and return them with a function to load them.

        Raises:
            CheckpointError: The state does not fit the network or the wrapper's arguments.
        """
        device = next((p.device for p in self._network.parameters()), torch.device("cpu"))
        modules, built = {stateful.key: stateful for stateful in self._modules}, {}
        specs: dict[str, TensorSpec] = {}
        with reading("the list of states"):
            entries = mapping(state)
        for key, saved in entries.items():
            if key not in modules:
                raise CheckpointError(
                    f"the checkpoint does not fit this wrapper: there is no state at {key!r}"
                )
            with reading(f"interface {key!r}"):
                specs[key] = TensorSpec.from_state(saved["spec"])
                example = specs[key].zeros(device)
            module, batch_dim = modules[key].module, modules[key].spec.batch_dim
            with building(key):
                built[key] = self._factory.build(key, module, example, batch_dim)
            with loading(key), reading("its state"):
                built[key].load_state_dict(mapping(saved["state"]))
        with reading("the states of windows"):
            loads = [s.prepare_load(state.get(s.key), device) for s in self._modules]

        def load() -> None:
            retire(self._interfaces.values(), self._learner)
            self._interfaces, self._specs = built, specs
            for interface in built.values():
                interface.set_learner(self._learner)
            for load_module in loads:
                load_module()

        return built, load
