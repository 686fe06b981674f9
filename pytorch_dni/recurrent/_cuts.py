"""The cuts of a network in time: where a window begins and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from .._backward_pass import call_after_backward_pass, current_backward_pass
from .._checks import shape_of
from .._objects import replace_differentiable
from .._tree import differentiable_tensors
from ..context import current_context
from ..cuts._hooks import Handles
from ..errors import DNIError
from ..interfaces._autograd import attach_gradients
from ..interfaces._learner import Learner
from ._factory import TemporalFactory
from ._given_up import AppliedWindow
from ._interface_set import StateInterfaces
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
        self._target = target
        self._bp_lambda = bp_lambda
        self._interfaces = StateInterfaces(network, modules, factory, target.check, learner)
        self._window: AppliedWindow | None = None  # the last one
        self._injections: list[FutureInjection] = []
        self._on_injection: OnInjection | None = None
        self._handles = Handles()
        self._learns = False  # whether the running window began as one of training
        self._closed = False

    def __getstate__(self) -> dict[str, Any]:
        # Graphs can be neither copied nor pickled.
        return {**self.__dict__, "_injections": [], "_on_injection": None, "_window": None}

    @property
    def interfaces(self) -> Mapping[str, TemporalInterface]:
        """The interfaces by key."""
        return self._interfaces.by_key

    def register(self) -> None:
        """Register the hooks."""
        if self._handles:
            self._handles.show()
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
        return self._target.crossing(key, self.interfaces[key], before, joined)

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
        self._interfaces.build_missing(states)
        window = self._window = AppliedWindow()
        self._injections = self._apply_window(states, window)
        self._on_injection = self._target.end_window(window) if self._learns else None
        if not self._injections:
            window.end()
            return None
        joined = [injection.joined for injection in self._injections]
        gradients = partial(self._gradients, self._injections, self._on_injection, window)
        return replace_differentiable(output, lambda ts: attach_gradients(ts, joined, gradients))

    def _apply_window(
        self, states: Mapping[str, Tensor], window: AppliedWindow
    ) -> list[FutureInjection]:
        context, injections = current_context(), []
        for stateful in self._modules:
            interface = self.interfaces.get(stateful.key)
            finished = stateful.end_window(interface, self._target)
            if stateful.key in states:
                assert interface is not None
                state = states[stateful.key]
                injections.append(stateful.carry(state, context, finished, interface))
            stateful.note_applied(window)
        return injections

    def _gradients(
        self,
        injections: Sequence[FutureInjection],
        on_injection: OnInjection | None,
        window: AppliedWindow | None,
        given: Sequence[Tensor | None] = (),
    ) -> list[Tensor]:
        """In a backward pass, return the gradients injected at last states."""
        if window is not None and current_backward_pass() is not None:
            call_after_backward_pass(window.end)
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
        if not self.interfaces:
            raise DNIError("observe() comes after a training forward pass with a state")
        for interface in self.interfaces.values():
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
        gradients = self._gradients(injections, self._on_injection, None)
        torch.autograd.backward([injection.joined for injection in injections], gradients)
        if self._window is not None:
            self._window.end()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return self._interfaces.state_dict()

    def prepare_load(
        self, state: Mapping[str, Any]
    ) -> tuple[dict[str, TemporalInterface], Callable[[], None]]:
        """Build the interfaces of a saved state, and return them with a function to load them.

        Raises:
            CheckpointError: The state does not fit the network or the wrapper's arguments.
        """
        built, load_interfaces = self._interfaces.prepare_load(state)

        def load() -> None:
            load_interfaces()
            self._injections, self._window = [], None
            self._target.forget()

        return built, load
