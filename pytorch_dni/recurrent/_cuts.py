"""The cuts of a network in time: where a window begins and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from .._checkpoint import building, loading, mapping, reading
from .._checks import shape_of
from .._objects import replace_differentiable
from .._tree import differentiable_tensors, TensorSpec
from ..context import current_context
from ..cuts._hooks import Handles
from ..errors import CheckpointError, DNIError
from ..interfaces._autograd import attach_gradients
from ..interfaces._learner import Learner, retire
from ._factory import TemporalFactory
from ._module import CallArguments, StatefulModule
from ._state import FutureInjection, WindowCrossing, WindowState
from ._target import Bootstrap, OnInjection
from .interface import TemporalInterface


class StateCuts:
    """The cuts of a network in time, and the interfaces that stand there.

    A window is one forward pass of the network: the state that a module's first call is given came
    from the window before, and the state that its last call returns goes to the next one.

    Args:
        network: The network.
        modules: Its stateful modules.
        factory: Builds interfaces.
        target: What the interfaces learn.
        learner: Trains the synthesizers.
        bp_lambda: Returns the share of the synthetic gradients that is left out in this step.
    """

    def __init__(
        self,
        network: nn.Module,
        modules: Sequence[StatefulModule],
        factory: TemporalFactory,
        target: Bootstrap,
        learner: Learner,
        bp_lambda: Callable[[], float],
    ) -> None:
        self._network = network
        self._modules = modules
        self._factory = factory
        self._target = target
        self._learner = learner
        self._bp_lambda = bp_lambda
        self._interfaces: dict[str, TemporalInterface] = {}
        self._specs: dict[str, TensorSpec] = {}  # the states that interfaces were built for
        self._injections: list[FutureInjection] = []
        self._on_injection: OnInjection | None = None
        self._handles = Handles()
        self._learns = False  # whether the running window began as one of training
        self._closed = False

    def __getstate__(self) -> dict[str, Any]:
        # Graphs can be neither copied nor pickled.
        return {**self.__dict__, "_injections": [], "_on_injection": None}

    @property
    def interfaces(self) -> Mapping[str, TemporalInterface]:
        """The interfaces by key."""
        return self._interfaces

    def register(self) -> None:
        """Register the hooks."""
        if self._handles or self._closed or not self._modules:
            return
        self._handles.before_forward(self._network, self._begin)
        for stateful in self._modules:
            self._handles.before_forward(stateful.module, self._take, stateful)
            self._handles.after_forward(stateful.module, self._give, stateful)
        self._handles.after_forward(self._network, self._end)

    def detach_hooks(self) -> None:
        """Remove the hooks, and release the graph of the last window."""
        self._handles.remove()
        self.drop_window()

    def close(self) -> None:
        """Remove everything from the network, finally."""
        self.detach_hooks()
        self._closed = True
        self._interfaces.clear()
        for stateful in self._modules:
            stateful.forget()
        self._target.forget()

    def _learning(self) -> bool:
        return self._network.training and torch.is_grad_enabled()

    def drop_window(self) -> None:
        """Drop the running window, and release the graph of the last one."""
        self._injections = []
        for stateful in self._modules:
            stateful.drop_window()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._target.replays:
            return
        self._injections = []
        for stateful in self._modules:
            stateful.begin_window()
        self._learns = self._learning()
        if self._learns:
            self._target.begin_window(args, kwargs)

    def _take(
        self,
        stateful: StatefulModule,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> CallArguments | None:
        if self._target.replays or not self._learning():
            return None
        return stateful.take((args, kwargs), self._crossing)

    def _crossing(self, key: str, before: WindowState, joined: Tensor) -> WindowCrossing:
        return self._target.crossing(key, self._interfaces[key], before, joined)

    def _give(
        self, stateful: StatefulModule, module: nn.Module, args: tuple[Any, ...], output: Any
    ) -> None:
        if not self._target.replays:
            stateful.give(output, self._learning())

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Apply the window, and have its last states get the gradient of the future.

        Raises:
            DNIError: The context or a state does not fit. Nothing has changed.
        """
        if self._target.replays:
            return None
        states: dict[str, Tensor] = {}
        if differentiable_tensors(output) and self._learning():
            found = {stateful.key: stateful.last_state() for stateful in self._modules}
            states = {key: state for key, state in found.items() if state is not None}
        built = self._checked_interfaces(states)
        self._add(built, states)
        self._injections = self._apply_window(states)
        self._on_injection = self._target.end_window() if self._learns else None
        if not self._injections:
            return None
        joined = [injection.joined for injection in self._injections]
        gradients = partial(self._gradients, self._injections, self._on_injection)
        return replace_differentiable(output, lambda ts: attach_gradients(ts, joined, gradients))

    def _checked_interfaces(self, states: Mapping[str, Tensor]) -> dict[str, TemporalInterface]:
        """Return interfaces for states that have none, once all fit the context."""
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
                self._target.check(interface)
                built[key] = interface
            interface.check_takes(context)
            interface.check(state, context)
        return built

    def _add(self, built: Mapping[str, TemporalInterface], states: Mapping[str, Tensor]) -> None:
        for key, interface in built.items():
            self._learner.add(interface.trained(), key)
            interface.set_learner(self._learner)
            self._interfaces[key] = interface
            self._specs[key] = TensorSpec.of(states[key])

    def _apply_window(self, states: Mapping[str, Tensor]) -> list[FutureInjection]:
        context, injections = current_context(), []
        for stateful in self._modules:
            interface = self._interfaces.get(stateful.key)
            finished = stateful.end_window(interface, self._target)
            if stateful.key in states:
                assert interface is not None
                state = states[stateful.key]
                injections.append(stateful.carry(state, context, finished, interface))
        return injections

    def _gradients(
        self,
        injections: Sequence[FutureInjection],
        on_injection: OnInjection | None,
        given: Sequence[Tensor | None] = (),
    ) -> list[Tensor]:
        """In a backward pass, return the gradients injected at last states."""
        bp_lambda = self._bp_lambda()
        gradients = [injection.gradient(bp_lambda) for injection in injections]
        if on_injection is not None:
            for injection, gradient in zip(injections, gradients, strict=True):
                on_injection(injection, gradient)
        return gradients

    def end_of_sequence(self, mask: Tensor | None) -> None:
        """End the sequences of samples with the window that has just run; None ends all.

        Raises:
            DNIError: No window has run, or the mask is not one of its samples.
        """
        carried = [s.carried for s in self._modules if s.carried is not None]
        if not carried:
            raise DNIError("end_of_sequence() comes after a training forward pass with a state")
        for state in carried:
            if mask is not None and not state.fits(mask):
                raise DNIError(
                    f"end_of_sequence() takes a mask of shape {tuple(state.ended.shape)}, one for "
                    f"each sample, but got {shape_of(mask)}"
                )
        for state in carried:
            state.end(mask)

    def observe(self, losses: Tensor) -> None:
        """Note, for critics, the losses of the window that has run; see :meth:`DNI.observe`."""
        if not self._interfaces:
            raise DNIError("observe() comes after a training forward pass with a state")
        for interface in self._interfaces.values():
            interface.observe(losses)

    def backward_state(self) -> None:
        """Backpropagate from the last states alone, for a window without a loss.

        Raises:
            DNIError: There is no window to go through.
        """
        injections, self._injections = self._injections, []
        if not injections:
            raise DNIError(
                "backward_state() comes after a training forward pass that returned a state, once"
            )
        gradients = self._gradients(injections, self._on_injection)
        torch.autograd.backward([injection.joined for injection in injections], gradients)

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
            self._interfaces, self._specs, self._injections = built, specs, []
            self._target.forget()
            for interface in built.values():
                interface.set_learner(self._learner)
            for load_module in loads:
                load_module()

        return built, load
