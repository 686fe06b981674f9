"""What an interface keeps besides its synthesizer's parameters: moved, saved and loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from .._checkpoint import mapping, reading
from .._normalization import RunningScale
from .._saved import Load, SavedModule
from .._statistics import RunningMoments
from .._torch import apply_to_tensors
from .._tree import map_tensors
from ..errors import CheckpointError
from ..synthesizers.base import Hidden
from ._error import ErrorInput
from ._learner import Learner


class StoredInterface(SavedModule):
    """Moves, saves and loads the state of an interface.

    Attributes:
        synthesizer: Predicts the messages.
        learner: Trains the synthesizer.
        trains_itself: Whether the synthesizer is trained by an optimizer of the interface's own.
        dtype: The synthesizer's type, at least float32.
        moments: Running moments of synthetic and true messages.
        scale: Running size of the true message; None where targets are not normalised.
        error_input: What is measured on errors; None where the synthesizer takes none.
        hidden: State of a recurrent synthesizer.
    """

    synthesizer: nn.Module
    learner: Learner
    trains_itself: bool
    dtype: torch.dtype
    moments: RunningMoments
    scale: RunningScale | None
    error_input: ErrorInput | None
    hidden: Hidden

    @property
    def owner(self) -> str:
        """What error messages call the interface."""
        return type(self).__name__

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StoredInterface:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.trains_itself:
            apply_to_tensors(self.synthesizer, fn)
        self.dtype = torch.promote_types(fn(self.moments.values).dtype, torch.float32)
        # A network in half precision keeps its synthesizers, which are small, in single precision.
        self.synthesizer.to(self.dtype)
        like = fn(self.moments.values).to(self.dtype)
        self.moments.to(like)
        for measured in (self.scale, self.error_input):
            if measured is not None:
                measured.to(like)
        self.hidden = map_tensors(self.hidden, fn)
        if self.trains_itself:
            self.learner.move_state()
        return self

    def saved_head(self) -> dict[str, bool | int | float]:
        """Return nothing: all is in the tree."""
        return {}

    def saved_tree(self) -> dict[str, Any]:
        """Return normalisation, recurrent state, and a synthesizer that trains itself."""
        scale = None if self.scale is None else self.scale.state_dict()
        state = {"moments": self.moments.state_dict(), "scale": scale, "hidden": self.hidden}
        if self.error_input is not None:
            state["error"] = self.error_input.state_dict()
        if self.trains_itself:
            state["synthesizer"] = {**self.synthesizer.state_dict()}
            state["learner"] = self.learner.state_dict()
        return state

    def prepare_load(self, head: Mapping[str, Any], tree: Any) -> Load:
        """Read a saved state, and return a function that loads it; it cannot fail.

        Raises:
            CheckpointError: It does not fit, or the saved interface left its synthesizer to the
                user's optimizer and this one trains it, or the other way round.
        """
        with reading(f"the state of {self.owner}"):
            if self.trains_itself != ("learner" in mapping(tree)):
                raise CheckpointError(
                    f"{self.owner}: one of the two, this interface and the one that was saved, "
                    "trains its synthesizer itself, the other leaves that to the user's "
                    "optimizer: give both the same optim"
                )
            # A copy shows whether it can be loaded.
            copy.deepcopy(self).load_tree(tree)
        return partial(self.load_tree, tree)

    def load_tree(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        if self.trains_itself:
            self.synthesizer.load_state_dict(state["synthesizer"])
            self.learner.load_state_dict(state["learner"])
        self.moments.load_state_dict(state["moments"])
        if self.scale is not None:
            self.scale.load_state_dict(state["scale"])
        if self.error_input is not None:
            self.error_input.load_state_dict(state["error"])
        self.hidden = _tree_of_tensors(state["hidden"])


def _tree_of_tensors(value: Any) -> Any:
    """Return a saved state of a synthesizer; ``TypeError`` where it is no tree of tensors."""
    children = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, (Mapping, list, tuple)):
        for child in children:
            _tree_of_tensors(child)
    elif value is not None and not isinstance(value, Tensor):
        raise TypeError(f"{value!r} is no tree of tensors")
    return value
