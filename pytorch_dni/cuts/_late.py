"""Cuts of layers that run for the first time after the cuts have been placed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..placement import FirstRun, Site
from ._hooks import Handles
from ._methods import CutMethod


class LateLayers:
    """Finds sites for the layers of ``layers=None`` that the first pass skipped.

    The pass in which such a layer runs is recorded from there on, and the cut is made in later
    passes. A pass whose parts are not connected in the graph does not show the connections around
    a cut, and is not recorded.

    Args:
        network: The network.
        first_run: Records the calls.
        method: Passes activations across the cuts.
        add: Called with new sites, and where layers need not be waited for any more.
    """

    def __init__(
        self,
        network: nn.Module,
        first_run: FirstRun,
        method: CutMethod,
        add: Callable[[list[Site]], None],
    ) -> None:
        self._network = network
        self._first_run = first_run
        self._method = method
        self._names: set[str] = set()
        self._add = add
        self._running = False
        self._recording = Handles()

    @property
    def names(self) -> set[str]:
        """The layers that have not run yet."""
        return self._names

    def wait_for(self, idle: Iterable[str]) -> None:
        """Wait for the layers that did not run."""
        self._names = {*idle}

    def register(self, handles: Handles) -> None:
        """Register the hooks that wait for the layers."""
        if not self._names:
            return
        handles.before_forward(self._network, self._begin)
        for name in sorted(self._names):
            handles.after_forward(self._network.get_submodule(name), self._record_from, name)
        for name in sorted(self._around()):
            handles.after_forward(self._network.get_submodule(name), self._record, name)
        handles.after_forward(self._network, self._end)

    def _around(self) -> set[str]:
        """Return the modules around the layers: a hook that is added while one runs comes late."""
        parts = [name.split(".") for name in self._names]
        return {".".join(part[:end]) for part in parts for end in range(1, len(part))}

    def drop(self) -> None:
        """Drop what has been recorded."""
        self._running = False
        self._recording.remove()
        self._first_run.clear()

    def _begin(self, *_: Any) -> None:
        self.drop()
        self._running = self._network.training and torch.is_grad_enabled()

    def _record_from(
        self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any
    ) -> None:
        if not self._running or self._recording or not self._method.is_connected:
            return
        around = self._around()
        for other, watched in self._first_run.watched().items():
            if other not in around:
                self._recording.after_forward(watched, self._first_run.record, other)
        self._first_run.record(name, module, args, output)

    def _record(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._recording:
            self._first_run.record(name, module, args, output)

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._recording:
            return
        sites, ran = self._first_run.late_sites(self._names, output)
        self.drop()
        self._names -= ran
        fixed = self._first_run.needs_trace  # whether a new cut separates the network is not known
        if fixed and sites:
            names = ", ".join(repr(site.source) for site in sites)
            warnings.warn(
                f"DNI makes no cut at layers that ran for the first time after the cuts had been "
                f"placed: {names}. With eager, name them in layers to cut there",
                stacklevel=2,
            )
        self._add([] if fixed else sites)
