"""The inputs of a forward pass that its cuts need later: the network's input and the context."""

from __future__ import annotations

from typing import Any

from torch import nn, Tensor

from .._backward_pass import current_backward_pass
from .._tree import first_activation
from ..context import Context, current_context
from ..errors import DNIError


class ForwardInputs:
    """The network's input and the context of the last forward pass.

    Both are kept until the next one, since checkpointed parts run again in the backward pass:
    outside of the scope of the context, and without the network being called.

    Args:
        network: The network, which error messages name.
        keeps_input: Whether the input is needed: activations are predicted from it.
    """

    def __init__(self, network: nn.Module, keeps_input: bool) -> None:
        self._type = type(network).__name__
        self._keeps_input = keeps_input
        self._input: Tensor | None = None
        self._running = False
        self._context: Context | None = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the input of a forward pass that begins, where it is needed.

        Raises:
            DNIError: It is needed, and there is no floating-point tensor in it.
        """
        if not self._keeps_input:
            return
        input = first_activation([*args, *kwargs.values()])
        if input is None:
            raise DNIError(
                "unlock='full' predicts activations from the network's input, but there is no "
                f"floating-point tensor among the arguments of {self._type}: wrap the layers "
                "after its embedding, or take unlock='update'"
            )
        self._input, self._running = input.detach(), True

    def end(self) -> None:
        """Note that the forward pass has ended."""
        self._running = False

    def trigger(self) -> Tensor:
        """Return the input of the running forward pass, or of the one that is backpropagated.

        Raises:
            DNIError: Neither runs.
        """
        if self._input is None or not (self._running or current_backward_pass() is not None):
            raise DNIError(
                "unlock='full' needs the network's input: call the network itself, not a module "
                "inside"
            )
        return self._input

    def context(self) -> Context | None:
        """Return the context of the scope, or of the forward pass that is backpropagated."""
        if current_backward_pass() is None:
            self._context = current_context()
        return self._context

    def forget(self) -> None:
        """Release input and context."""
        self._input, self._context, self._running = None, None, False
