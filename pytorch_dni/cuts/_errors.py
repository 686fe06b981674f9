"""The error of each forward pass, taken for the synthesizers that need it."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor

from .._checkpoint import listed, number, text
from .._tree import differentiable_tensors, sizes
from ..interfaces._error import OutputError
from ..placement import ErrorPlace


class PassErrors:
    """Takes the error of each forward pass, where a synthesizer needs one.

    Attributes:
        place: Where the error is taken; None where no synthesizer needs it.
        current: The error of the last forward pass that has begun.
    """

    def __init__(self) -> None:
        self.place: ErrorPlace | None = None
        self.current = OutputError()

    def __getstate__(self) -> dict[str, Any]:
        # A gradient of a backward pass belongs to one network, not to its copy.
        return {**self.__dict__, "current": OutputError()}

    def describe(self) -> list[str]:
        """Return a line on where the error is taken, if it is."""
        return [] if self.place is None else [self.place.describe()]

    @property
    def at_last_cut(self) -> bool:
        """Whether the error is taken at the last cut."""
        return self.place is not None and self.place.cut is not None

    def set_place(self, place: ErrorPlace | None) -> None:
        """Set where the error is taken from now on."""
        self.place = place

    def begin(self) -> None:
        """Begin a forward pass."""
        self.current = OutputError()

    def is_source(self, name: str) -> bool:
        """Return whether the gradient at a cut is the error, which passes as it is."""
        return self.place is not None and self.place.cut == name

    def watch_activation(self, activation: Tensor) -> None:
        """Take the gradient of the activation at the last cut."""
        assert self.place is not None
        self.current.watch(activation, self.place.feature_dim)

    def expect(self, tensor: Tensor) -> None:
        """Note the tensor whose gradient will be given for the error of the running pass.

        Raises:
            SynthesizerError: The answer of a synthesizer that is given this error is wrong.
        """
        assert self.place is not None
        self.current.expect_like(tensor, self.place.feature_dim)

    def give(self, error: OutputError, grad: Tensor | None) -> None:
        """Give a gradient, of the output or at the last cut, to the error of a pass."""
        assert self.place is not None
        error.receive(self.place.feature_dim, grad)

    def watch_output(self, output: Any) -> None:
        """Take the gradient of the network's output, where that is the place."""
        if self.place is None or self.place.cut is not None:
            return
        tensors = differentiable_tensors(output)
        if len(tensors) == 1:
            self.current.watch(tensors[0], self.place.feature_dim)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state as plain data and tensors."""
        if self.place is None:
            return None
        return {
            **self.place._asdict(),
            "shape": torch.tensor(self.place.shape, dtype=torch.int64, device="cpu"),
        }

    def prepare_load(
        self, state: Any, cuts: Container[str]
    ) -> tuple[ErrorPlace | None, Callable[[], None]]:
        """Read a saved state, and return its place with a function to load it; it cannot fail.

        Args:
            state: The saved state.
            cuts: Names of the saved cuts.

        Raises:
            KeyError, TypeError, ValueError: It does not fit the cuts.
        """
        place = None
        if state is not None:
            shape = sizes(state["shape"])
            dim = state["feature_dim"]
            if number(dim + 1) > len(shape):
                raise ValueError(f"feature dimension {dim} of shape {shape}")
            cut = state["cut"]
            if cut is not None and text(cut) not in cuts:
                raise ValueError(f"{cut!r} is no cut")
            residual = [text(name) for name in listed(state["residual"])]
            place = ErrorPlace(cut, shape, dim, residual)

        def load() -> None:
            self.place = place

        return place, load
