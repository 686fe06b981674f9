"""What the synthesizers of states learn: the bootstrap, and what other targets replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ._given_up import AppliedWindow
from ._state import FutureInjection, WindowCrossing, WindowState
from .interface import TemporalInterface

OnInjection = Callable[[FutureInjection, Tensor], None]


class Bootstrap:
    """The target of a single window: what it sends back to its first state.

    Targets that reach over several windows derive from this class.
    """

    @property
    def replays(self) -> bool:
        """Whether a window runs once more at this moment; the cuts then do nothing."""
        return False

    def check(self, interface: TemporalInterface) -> None:
        """Raise :class:`SynthesizerError` where an interface cannot learn this target."""

    def begin_window(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note that a window of training begins with these arguments of the network."""

    def crossing(
        self, key: str, interface: TemporalInterface, before: WindowState, joined: Tensor
    ) -> WindowCrossing:
        """Return what carries a state into the window that has begun."""
        return WindowCrossing(interface, before, joined)

    def drop_state(self, key: str, interface: TemporalInterface, state: WindowState) -> bool:
        """Note that a state was not carried on.

        Returns:
            Whether its lesson is learned in the backward pass of the window that has begun.
        """
        return True

    def end_window(self, window: AppliedWindow) -> OnInjection | None:
        """Note that the window has run.

        Args:
            window: The window, which tells when its backward pass has ended.

        Returns:
            A function that is called with each gradient that is injected; None for none.
        """
        return None

    def forget(self) -> None:
        """Release what is kept of earlier windows."""
