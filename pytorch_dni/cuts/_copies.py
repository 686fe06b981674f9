"""Which cuts keep a copy of their activation, because later layers change it in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from .._checkpoint import flag, mapping
from .._torch import version


class TriggerCopies:
    """The cuts whose activation has to be copied to serve as a trigger.

    A synthesizer must see the activation as it was at the cut. Whether later layers change it in
    place shows only after a pass, so that each cut copies it in its first one.
    """

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._seen: set[str] = set()

    def needs_copy(self, name: str) -> bool:
        """Return whether a cut has to copy its activation in the pass that runs."""
        return name not in self._seen or name in self._changed

    def mark_seen(self, name: str) -> None:
        """Note that a cut has had its first pass."""
        self._seen.add(name)

    def mark_changed(self, names: Iterable[str]) -> None:
        """Have cuts copy their activation from now on."""
        self._changed.update(names)

    def state_dict(self, names: Iterable[str]) -> dict[str, bool]:
        """Return the state of cuts as plain data."""
        return {name: name in self._changed for name in names}

    def prepare_load(self, state: Any) -> Callable[[], None]:
        """Read a saved state, and return a function that loads it; it cannot fail."""
        changed = {name for name, is_changed in mapping(state).items() if flag(is_changed)}

        def load() -> None:
            self._changed = changed

        return load


class InPlaceWatch:
    """Tells whether a tensor has been changed in place since.

    Args:
        tensor: The tensor.

    Attributes:
        value: The tensor, detached.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.value = tensor.detach()
        self._version = version(tensor)

    @property
    def changed(self) -> bool:
        """Whether the tensor has been changed."""
        return version(self.value) != self._version
