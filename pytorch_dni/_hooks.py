"""Hooks of a cut: how the network's modules and autograd call the register of cuts."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn, Tensor

from .context import Context


class Register(Protocol):
    """What the hooks call: the register of a network's cuts."""

    copied: set[str]

    def attach(self, name: str, output: Any) -> Any:
        """A cut module ran; returns what goes on in its output's place, if something does."""

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The network was called."""

    def leave(self, output: Any) -> Any:
        """The network has run; returns what goes on in its output's place, if something does."""

    def receive(
        self, name: str, trigger: Tensor, context: Context | None, grad: Tensor
    ) -> Tensor | None:
        """The true gradient has reached a cut; returns what is handed on."""


class ModuleHook:
    """Base of the hooks that the wrapper puts into modules: what tells that one is wrapped."""


class OutputHook(ModuleHook):
    """Forward hook of a cut module: hands its output to the register of cuts."""

    def __init__(self, cuts: Register, name: str) -> None:
        self._cuts = cuts
        self._name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return self._cuts.attach(self._name, output)


class EnterHook(ModuleHook):
    """Forward pre-hook of the network."""

    def __init__(self, cuts: Register) -> None:
        self._cuts = cuts

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._cuts.enter(args, kwargs)


class LeaveHook(ModuleHook):
    """Forward hook of the network."""

    def __init__(self, cuts: Register) -> None:
        self._cuts = cuts

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return self._cuts.leave(output)


class GradientHook:
    """Tensor hook on an activation: puts the synthetic gradient in the true one's place.

    A hook on the tensor itself rather than a function in the graph: it leaves the activation
    untouched, so that what follows may change it in place.
    """

    def __init__(
        self, cuts: Register, name: str, activation: Tensor, context: Context | None, copy: bool
    ) -> None:
        self._cuts = cuts
        self._name = name
        self._context = context
        self._live = activation.detach()
        self._trigger = self._live.clone() if copy else self._live
        self._version = activation._version

    def __call__(self, grad: Tensor | None) -> Tensor | None:
        if grad is None:
            # Reached through what else the module returned, and nothing may take its place.
            return None
        if self._live._version != self._version:
            # Changed in place since: from now on the trigger is kept as the cut saw it.
            self._cuts.copied.add(self._name)
        return self._cuts.receive(self._name, self._trigger, self._context, grad)
