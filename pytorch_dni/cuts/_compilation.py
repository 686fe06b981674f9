"""``torch.compile`` for the modules between the cuts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from ._visible import own_forward

_OWN = "forward"


class CompiledForward:
    """Compiles the forward pass of a module when it is first called; hooks stay outside.

    Args:
        module: The module.
        options: Options of ``torch.compile``.
    """

    def __init__(self, module: nn.Module, options: dict[str, Any]) -> None:
        self.before: Any = own_forward(module)
        self._module = module
        self._options = options
        self._compiled: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # The compiled function belongs to this module, not to a copy of it.
        return {**self.__dict__, "_compiled": None}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is None:
            plain = type(self._module).forward.__get__(self._module)
            own = plain if self.before is None else self.before
            self._compiled = torch.compile(own, **self._options)
        return self._compiled(*args, **kwargs)


class CompiledParts:
    """The compiled modules of a network.

    Args:
        network: The network.
        options: Options of ``torch.compile``.
    """

    def __init__(self, network: nn.Module, options: dict[str, Any]) -> None:
        self._network = network
        self._options = options
        self._modules: list[nn.Module] = []

    def apply(self, cuts: Collection[str]) -> None:
        """Compile the largest modules without a cut inside; single layers gain nothing by it."""
        self.remove()
        self._visit("", self._network, cuts)

    def _visit(self, name: str, module: nn.Module, cuts: Collection[str]) -> None:
        children = [*module.named_children()]
        inside = any(cut.startswith(f"{name}." if name else "") and cut != name for cut in cuts)
        runs = type(module).forward is not nn.Module.forward
        if name and children and runs and not inside:
            module.forward = CompiledForward(module, self._options)
            self._modules.append(module)
            return
        for child, inner in children:
            self._visit(f"{name}.{child}" if name else child, inner, cuts)

    def remove(self) -> None:
        """Restore the modules' own forward passes."""
        for module in self._modules:
            compiled = module.__dict__.pop(_OWN, None)
            if isinstance(compiled, CompiledForward) and compiled.before is not None:
                module.__dict__[_OWN] = compiled.before
        self._modules = []
