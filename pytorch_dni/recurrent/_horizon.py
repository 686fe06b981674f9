"""Lessons that reach over several windows, which run once more for that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn, Tensor

from ..errors import SynthesizerError
from ..synthesizers import Critic_DNI
from ._kept import Kept, Way, WindowCrossing
from ._record import Left, Record, Rerun
from .temporal import TemporalInterface


class Horizon(ABC):
    """Keeps what windows received, and teaches when the next one begins.

    What is under way is not saved in checkpoints: a resumed run begins anew with its first window.

    Args:
        network: The network.
        interfaces: Finds the interfaces by their keys.

    Attributes:
        rerun: The window that is run once more at this moment.
    """

    def __init__(self, network: nn.Module, interfaces: Callable[[str], TemporalInterface]) -> None:
        self.rerun: Rerun | None = None
        self._network = network
        self._interface = interfaces
        self._record: Record | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Crossings hold no graph, but belong to the interfaces of this very wrapper.
        return {**self.__dict__, "_record": None}

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A window begins: learn from the one before."""
        record, self._record = self._record, None
        if record is not None:
            self.learn(record)
        self._record = Record.of(args, kwargs)

    def crossing(self, key: str, kept: Kept, joined: Tensor) -> WindowCrossing:
        """The window takes a first state."""
        assert self._record is not None
        receive = partial(self._record.receive, key)
        crossing = WindowCrossing(self._interface(key), kept, joined, receive)
        self._record.taken[key] = crossing
        return crossing

    def end(self, key: str, kept: Kept) -> None:
        """The window was handed no state, though one was left."""
        assert self._record is not None
        self._record.ended[key] = kept

    @property
    def note(self) -> Callable[[Way, Tensor], None]:
        """Takes what is sent into the window's last states."""
        assert self._record is not None
        return self._record.note

    def forget(self) -> None:
        """Let go of what is under way."""
        self._record = None

    @abstractmethod
    def learn(self, record: Record) -> None:
        """A window has run, and was backpropagated if :attr:`Record.complete` says so."""

    def check(self, interface: TemporalInterface) -> None:
        """Raise :class:`SynthesizerError` where this target is not for an interface."""
        if isinstance(interface.synthesizer, Critic_DNI):
            raise SynthesizerError(
                f"{interface.owner}: a critic learns from observed losses: leave target as it is"
            )

    def again(self, record: Record) -> Rerun:
        """Run a window once more."""
        self.rerun = Rerun(self._network, record)
        try:
            return self.rerun.run()
        finally:
            self.rerun = None

    def told(self, key: str, left: Left) -> Tensor:
        """What the synthesizer tells at a last state, times the factor."""
        if not left.how.skip or left.how.factor == 0:
            return left.sent
        kept = left.kept
        told = self._interface(key).foretell(kept.state, kept.context, ~left.alive.squeeze(1))
        return (told * left.how.factor).to(left.sent)
