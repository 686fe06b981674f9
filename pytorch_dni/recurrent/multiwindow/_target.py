"""The base class of targets that reach over several windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn, Tensor

from ...errors import SynthesizerError
from ...interfaces._learner import Learner
from ...synthesizers import Critic_DNI
from .._given_up import AppliedWindow
from .._module import StatefulModule
from .._state import WindowCrossing, WindowState
from .._target import Bootstrap, OnInjection
from ..interface import TemporalInterface
from ._record import RecordedCrossing, WindowEnd, WindowRecord
from ._replay import Replay


class MultiWindowTarget(Bootstrap, ABC):
    """Records windows, and teaches when the next one begins.

    Records are not saved in checkpoints: a resumed run begins anew with its first window.

    Args:
        network: The network.
        modules: Its stateful modules.
        learner: Trains the synthesizers.
    """

    def __init__(
        self, network: nn.Module, modules: Sequence[StatefulModule], learner: Learner
    ) -> None:
        self._network = network
        self._modules = modules
        self._learner = learner
        self._record: WindowRecord | None = None
        self._broken: WindowRecord | None = None  # the last window, whose backward pass broke off
        self._replays = False

    def __getstate__(self) -> dict[str, Any]:
        # Crossings hold no graph, but belong to the interfaces of this very wrapper.
        return {**self.__dict__, "_record": None, "_broken": None}

    @property
    def replays(self) -> bool:
        """Whether a window runs once more at this moment."""
        return self._replays

    def check(self, interface: TemporalInterface) -> None:
        """Raise :class:`SynthesizerError` where an interface cannot learn this target."""
        if isinstance(interface.synthesizer, Critic_DNI):
            raise SynthesizerError(
                f"{interface.owner}: a critic learns from observed losses: leave target as it is"
            )

    def begin_window(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Learn from the window before, unless it broke off, and record the new one."""
        record, self._record = self._record, None
        if record is not None and record.window is not None:
            if record.window.ended:
                self.learn(record)
            else:
                self._broken = record  # it may be given up by the window that begins
        self._record = WindowRecord.begin(args, kwargs)

    def crossing(
        self, key: str, interface: TemporalInterface, before: WindowState, joined: Tensor
    ) -> WindowCrossing:
        """Return what carries a state into the window, and records the gradient that comes."""
        assert self._record is not None
        crossing = RecordedCrossing(interface, before, joined, self._record, key)
        self._record.taken[key] = crossing
        return crossing

    def drop_state(self, key: str, interface: TemporalInterface, state: WindowState) -> bool:
        """Record that a state was not carried on; its lesson comes with the window's."""
        assert self._record is not None
        self._record.dropped[key] = interface, state
        return False

    def end_window(self, window: AppliedWindow) -> OnInjection | None:
        """Record that the window has run, and what will be injected into it."""
        if self._record is None:
            return None
        broken, self._broken = self._broken, None
        if broken is not None and broken.window is not None and not broken.window.given_up:
            self.learn(broken)
        self._record.mark_run(window)
        return self._record.add_injection

    def forget(self) -> None:
        """Release what is kept of earlier windows."""
        self._record = self._broken = None

    @abstractmethod
    def learn(self, record: WindowRecord) -> None:
        """Learn from a window, which was backpropagated if it is complete."""

    def replay(self, record: WindowRecord) -> Replay:
        """Run a window once more."""
        self._replays = True
        try:
            return Replay(self._network, self._modules, record).run()
        finally:
            self._replays = False

    def predicted(self, end: WindowEnd) -> Tensor:
        """Return the prediction at a window's last state, times the factor."""
        if not end.injection.probes or end.injection.factor == 0:
            return end.injected
        state = end.state
        predicted = end.interface.predict_future(state.state, state.context, state.without_future)
        return (predicted * end.injection.factor).to(end.injected)
