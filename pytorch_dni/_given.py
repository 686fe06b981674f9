"""What a forward pass was given, for its cuts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn, Tensor

from ._tree import first_activation
from .context import Context, current_context
from .errors import DNIError


class Given:
    """The network's input and the context of the last forward pass.

    Both are kept until the next one, since checkpointed parts run again in the backward pass:
    outside of the scope of the context, and without the network being called.
    """

    def __init__(self) -> None:
        self.input: Tensor | None = None
        self._running = False
        self._context: Context | None = None

    def enter(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The network was called, and its input is of use.

        Raises:
            DNIError: There is no floating-point tensor in it.
        """
        input = first_activation([*args, *kwargs.values()])
        if input is None:
            raise DNIError(
                "unlock='full' predicts activations from the network's input, but there is no "
                f"floating-point tensor among the arguments of {type(network).__name__}: "
                "wrap the part of the network behind its embedding, or take unlock='update'"
            )
        self.input, self._running = input, True

    def leave(self) -> None:
        """The network has run."""
        self._running = False

    def trigger(self) -> Tensor:
        """The input of the running forward pass, or of the one that is backpropagated.

        Raises:
            DNIError: Neither runs.
        """
        if self.input is None or not (self._running or _in_backward()):
            raise DNIError(
                "unlock='full' needs the network's input: call the network itself, not a module "
                "inside"
            )
        return self.input

    def context(self) -> Context | None:
        """The context of the scope, or of the forward pass that is backpropagated."""
        if not _in_backward():
            self._context = current_context()
        return self._context

    def forget(self) -> None:
        """Let go of everything."""
        self.input, self._context, self._running = None, None, False


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1
