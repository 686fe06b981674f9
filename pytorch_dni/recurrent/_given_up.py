"""Windows that are given up: their backward pass broke off, and their state is not carried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ._state import WindowState

_MOST = 32  # windows that are remembered: more are seldom backpropagated at once


class AppliedWindow:
    """A window that has run.

    Attributes:
        ended: Whether a backward pass from it has ended well, or there is nothing to learn from it.
        given_up: Whether it has been taken back.
    """

    def __init__(self) -> None:
        self.ended = False
        self.given_up = False

    def end(self) -> None:
        """Note that its backward pass has ended well."""
        self.ended = True

    def give_up(self) -> None:
        """Note that it has been taken back."""
        self.given_up = True


class _Applied(NamedTuple):
    """What a window has changed at a module.

    Attributes:
        window: The window.
        before: The state that was carried before it.
        after: The state that it carried on.
        undo: Takes the change back.
    """

    window: AppliedWindow
    before: WindowState | None
    after: WindowState | None
    undo: Callable[[], None]


class GivenUpWindows:
    """Finds out which of a module's last windows were given up.

    A window whose backward pass has not ended, because something raised in it, is followed by one
    of two: a window that begins with its last state, after which training goes on from there; or
    another, after which it is as if it had never run.
    """

    def __init__(self) -> None:
        self._windows: list[_Applied] = []

    def add(
        self,
        window: AppliedWindow,
        before: WindowState | None,
        after: WindowState | None,
        undo: Callable[[], None],
    ) -> None:
        """Add a window that has run."""
        if self._windows and self._windows[-1].window.ended:
            self._windows.clear()
        self._windows.append(_Applied(window, before, after, undo))
        del self._windows[:-_MOST]

    def count(self, joined: Tensor | None) -> int:
        """Return how many windows are given up by one that begins with this state.

        Args:
            joined: The state, ``(batch, features)``; None where it begins without one.
        """
        for number, applied in enumerate(reversed(self._windows)):
            if applied.window.ended:  # the common case, in which nothing is compared
                return number
            after = applied.after
            if joined is not None and after is not None and after.rows_in(joined).any():
                return number
        return len(self._windows)

    def state_before(self, count: int) -> WindowState | None:
        """Return the state that was carried before the last windows, of which there are some."""
        return self._windows[-count].before

    def take_back(self, count: int) -> None:
        """Take the last windows back."""
        for _ in range(count):
            applied = self._windows.pop()
            applied.undo()
            applied.window.give_up()
