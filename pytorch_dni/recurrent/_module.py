"""A stateful module of the network, and the window that runs through it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from .._tree import floating_tensors
from ..context import Context
from ..interfaces._autograd import cross
from ._given_up import AppliedWindow, GivenUpWindows
from ._stability import nothing
from ._state import FutureInjection, WindowCrossing, WindowState
from ._target import Bootstrap
from .interface import TemporalInterface
from .spec import join_state, split_state, StateSpec

_UNUSED_STATES = 20  # forward passes without a state, after which the loop seems to be wrong

MakeCrossing = Callable[[str, WindowState, Tensor], WindowCrossing]
CallArguments = tuple[tuple[Any, ...], dict[str, Any]]


class StatefulModule:
    """A stateful module, the state that it carries from window to window, and the running window.

    What the running window does is pending: :meth:`end_window` applies it, and
    :meth:`drop_window` drops it.

    Args:
        name: Qualified name of the module.
        module: The module.
        spec: How it takes and returns its state.

    Attributes:
        key: Key of its interface.
        carried: The last state of the window before; None before there is one.
    """

    def __init__(self, name: str, module: nn.Module, spec: StateSpec) -> None:
        self.name = name
        self.key = f"{name}.state" if name else "state"
        self.module = module
        self.spec = spec
        self.carried: WindowState | None = None
        self._ended: WindowState | None = None  # not carried on, and not learned from yet
        self._unused = 0
        self._given_up = GivenUpWindows()
        self.drop_window()

    def __getstate__(self) -> dict[str, Any]:
        # Graphs can be neither copied nor pickled, and windows of this wrapper belong to it.
        window = {"_running": False, "_crossing": None, "_last": None, "_gives_up": 0}
        return {**self.__dict__, **window, "_kept": None, "_given_up": GivenUpWindows()}

    def begin_window(self) -> None:
        """Begin a window; one that broke off is dropped."""
        self.drop_window()
        self._running = True

    def drop_window(self) -> None:
        """Drop the running window: the state of the window before still holds."""
        self._running = False
        self._calls = 0
        self._took_state = False
        self._gives_up = 0  # so many windows before it
        self._kept: tuple[WindowState | None, Callable[[], None]] | None = None
        self._crossing: WindowCrossing | None = None
        self._last: Any = None

    def take(self, call: CallArguments, make_crossing: MakeCrossing) -> CallArguments | None:
        """Cut the state that comes from the window before.

        Args:
            call: Arguments of a call of the module.
            make_crossing: Makes what carries the state into the window.

        Returns:
            The arguments of the call; None where they stay as they are.

        Raises:
            DNIError: The argument is no state.
        """
        if not self._running or self._calls:
            return None
        self._took_state = True
        state = self.spec.state_in(*call)
        joined = None if state is None else join_state(state, self.spec.batch_dim).detach()
        self._gives_up = self._given_up.count(joined)
        if joined is None:
            return None
        before = self.carried
        if self._gives_up:
            before = self._given_up.state_before(self._gives_up)
        if before is None:
            cut = joined
        else:
            self._crossing = make_crossing(self.key, before, joined)
            cut = cross(joined.requires_grad_(), self._crossing)
        return self.spec.with_state(*call, split_state(cut, state, self.spec.batch_dim))

    def give(self, output: Any, learning: bool) -> None:
        """Note the state that the module has returned."""
        if not self._running:
            return
        self._calls += 1
        if learning:
            self._last = self.spec.state_returned(self.name, output)

    def last_state(self) -> Tensor | None:
        """Return the last state of the running window in its graph; None where it has none."""
        if not any(tensor.requires_grad for tensor in floating_tensors(self._last)):
            return None
        return join_state(self._last, self.spec.batch_dim)

    def end_window(self, interface: TemporalInterface | None, target: Bootstrap) -> Tensor | None:
        """Apply how the window began: the state before has been used.

        Args:
            interface: The interface; None before there is one.
            target: What the interface learns.

        Returns:
            Samples of the window, ``(batch,)``, whose sequence had ended before; None for none.
        """
        took_state, crossing, gives_up = self._took_state, self._crossing, self._gives_up
        self.drop_window()
        if not took_state:
            return None
        self._given_up.take_back(gives_up)
        self._kept = self.carried, self._keep(interface)
        before, self.carried = self.carried, None
        if before is None or interface is None:
            return None
        if crossing is not None:
            crossing.apply()
            return crossing.finished
        if target.drop_state(self.key, interface, before):
            self._ended = before
        interface.begin_sequence()
        self._count_unused(interface)
        return None

    def _keep(self, interface: TemporalInterface | None) -> Callable[[], None]:
        """Return what takes back all that the window changes when it is applied."""
        losses = nothing if interface is None else interface.keep_losses()
        return partial(self._restore, self.carried, self._ended, self._unused, losses)

    def _restore(
        self,
        carried: WindowState | None,
        ended: WindowState | None,
        unused: int,
        restore_losses: Callable[[], None],
    ) -> None:
        self.carried, self._ended, self._unused = carried, ended, unused
        restore_losses()

    def note_applied(self, window: AppliedWindow) -> None:
        """Note that the window has been applied: it is taken back where it is given up."""
        kept, self._kept = self._kept, None
        if kept is not None:
            before, undo = kept
            self._given_up.add(window, before, self.carried, undo)

    def _count_unused(self, interface: TemporalInterface) -> None:
        self._unused += 1
        if self._unused == _UNUSED_STATES and not interface.moments.updates:
            warnings.warn(
                f"{interface.owner}: in {_UNUSED_STATES} forward passes no state was carried from "
                "one to the next, and there is nothing to learn from. Give it to the next pass "
                "(out, state = net(x, state)), or give recurrent=False to cut the network in space",
                stacklevel=2,
            )

    def carry(
        self,
        joined: Tensor,
        context: Context | None,
        finished: Tensor | None,
        interface: TemporalInterface,
    ) -> FutureInjection:
        """Carry the window's last state to the next window.

        Args:
            joined: The state in its graph, ``(batch, features)``.
            context: The context of the window.
            finished: Samples, ``(batch,)``, whose sequence had ended before the window.
            interface: Predicts the gradient of the future.

        Returns:
            The gradient of the future on its way into the window.
        """
        # A copy, since the user may change the state in place before using it.
        state = joined.detach().clone()
        if finished is None:
            finished = torch.zeros(len(state), dtype=torch.bool, device=state.device)
        self.carried = WindowState(state, context, finished)
        ended, self._ended = self._ended, None
        return FutureInjection(self.key, interface, joined, self.carried, ended)

    def forget(self) -> None:
        """Release all states."""
        self.carried = self._ended = None
        self._given_up = GivenUpWindows()
        self.drop_window()

    def state_dict(self) -> dict[str, Any]:
        """Return the states as plain data and tensors."""
        states = {"carried": self.carried, "ended": self._ended}
        return {n: None if s is None else s.state_dict() for n, s in states.items()}

    def prepare_load(
        self, state: dict[str, Any] | None, device: torch.device
    ) -> Callable[[], None]:
        """Read saved states, and return a function that loads them; it cannot fail."""
        states: dict[str, WindowState | None] = {"carried": None, "ended": None}
        for name in states:
            saved = None if state is None else state[name]
            if saved is not None:
                states[name] = WindowState.from_state(saved, device)
        carried, ended = states["carried"], states["ended"]

        def load() -> None:
            self.forget()
            self.carried, self._ended = carried, ended

        return load
