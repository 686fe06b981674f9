"""Hooks of the windows: how the network and its stateful modules call their register."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

from torch import nn

from .._hooks import ModuleHook

if TYPE_CHECKING:
    from ._site import Site
    from ._windows import Windows


class EnterHook(ModuleHook):
    """Forward pre-hook of the network: a window begins."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._windows.enter(args, kwargs)


class TakeHook(ModuleHook):
    """Forward pre-hook of a stateful module: it takes a state."""

    def __init__(self, windows: Windows, site: Site) -> None:
        self._windows = windows
        self._site = site

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._windows.take(self._site, args, kwargs)


class GiveHook(ModuleHook):
    """Forward hook of a stateful module: it returns one."""

    def __init__(self, windows: Windows, site: Site) -> None:
        self._windows = windows
        self._site = site

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._windows.give(self._site, output)


class LeaveHook(ModuleHook):
    """Forward hook of the network: a window ends."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return self._windows.leave(output)
