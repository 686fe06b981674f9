"""Which activations of a forward pass are cut."""

from __future__ import annotations

import warnings
from typing import Any
from weakref import ref

from torch import nn, Tensor

from .._torch import version
from .._tree import first_activation, map_floating
from ..errors import describe
from ..placement import NO_ACTIVATION


class ReachedCuts:
    """Finds the activation to cut in what a module returned.

    A tensor is cut once: a module may return its input, which an earlier cut has passed on.
    """

    def __init__(self) -> None:
        self._last: tuple[ref[Tensor], int] | None = None
        self._warned: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # A tensor of a running pass belongs to one network, not to its copy.
        return {**self.__dict__, "_last": None}

    def activation(
        self, name: str, module: nn.Module, output: Any, needed: bool = False
    ) -> Tensor | None:
        """Return the activation to cut; None where there is none.

        ``needed`` takes one that asks for no gradient, too.
        """
        activation = first_activation(output)
        if activation is None:
            self._warn(name, module, output)
            return None
        # Tensors on the meta device have no values to learn from.
        if not (activation.requires_grad or needed) or activation.is_meta:
            return None
        last = self._last
        if last is not None and last[0]() is activation and last[1] == version(activation):
            return None
        return activation

    def replaced(self, output: Any, activation: Tensor, passed: Tensor | None) -> Any:
        """Return an output with another tensor in the place of its activation.

        Args:
            output: What the module returned.
            activation: The activation in it.
            passed: The tensor that is passed on in its place; None for no change.

        Returns:
            The output; None for no change.
        """
        on = activation if passed is None else passed
        self._last = ref(on), version(on)
        if passed is None or output is activation:
            return passed
        return map_floating(output, lambda tensor: passed if tensor is activation else tensor)

    def _warn(self, name: str, module: nn.Module, output: Any) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(
                f"DNI makes no cut at {describe(name, module)}, which returned "
                f"{type(output).__name__}, {NO_ACTIVATION}",
                stacklevel=2,
            )
