"""The backward pass that runs: the outermost one, where checkpoints run others inside of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import ref

from . import _torch


class _OuterPass:
    """A backward pass in which modules run again; the engine holds the only reference.

    Args:
        number: Its number.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.callbacks: list[Callable[[], None]] = []

    def end(self) -> None:
        """Call what waits for the end of the pass."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()


class _Known(threading.local):
    """The pass of this thread in which modules run again, as long as it runs."""

    _outer: ref[_OuterPass] | None = None

    def set(self, outer: _OuterPass) -> None:
        self._outer = ref(outer)

    def get(self) -> _OuterPass | None:
        return None if self._outer is None else self._outer()


_known = _Known()


def note_module_call() -> None:
    """Note that a module runs, perhaps in a backward pass.

    There a checkpoint runs it again. One with ``use_reentrant=True`` then runs a backward pass of
    its own, which has another number and an end of its own.
    """
    number = _torch.current_backward_pass()
    if number is not None and _known.get() is None:
        outer = _OuterPass(number)
        _torch.call_after_backward_pass(outer.end)
        _known.set(outer)


def current_backward_pass() -> int | None:
    """Return the number of the outermost backward pass in this thread; None outside of one."""
    number = _torch.current_backward_pass()
    if number is None:
        return None
    outer = _known.get()
    return number if outer is None else outer.number


def call_after_backward_pass(callback: Callable[[], None]) -> None:
    """Call a function when the outermost backward pass that runs in this thread ends."""
    outer = _known.get()
    if outer is None:
        _torch.call_after_backward_pass(callback)
    else:
        outer.callbacks.append(callback)
