"""Guards of the calls in which the network learns."""

from __future__ import annotations

from threading import get_ident
from typing import Any

from ._torch import is_transformed
from .errors import DNIError


class TrainingThread:
    """Lets forward passes of training run in one thread at a time.

    A forward pass leaves its activations with the wrapper's cuts, where those of two passes at once
    would be mixed.

    Args:
        kind: Name of the network's class, for messages.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._owner: dict[str, int] = {}  # ``setdefault`` of a dict cannot be interrupted

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owner": {}}

    def enter(self) -> bool:
        """Begin a forward pass of training, and return whether it is inside of no other one.

        Raises:
            DNIError: One runs in another thread, or ``torch.func`` transforms it.
        """
        if is_transformed():
            raise DNIError(
                f"a transform of torch.func (vmap, grad, jvp, ...) calls {self._kind} in training, "
                "but cuts and what they learn are no function that it can transform: call the "
                "network in eval(), where it has no cuts; torch.func.functional_call is fine"
            )
        own = get_ident()
        outermost = self._owner.get("thread") != own
        if self._owner.setdefault("thread", own) != own:
            raise DNIError(
                f"two threads run training forward passes of {self._kind} at once: run them one "
                "after another, give each thread a copy.deepcopy() of the wrapper, or take "
                "DistributedDataParallel instead of DataParallel"
            )
        return outermost

    def leave(self) -> None:
        """End the outermost forward pass."""
        self._owner.clear()
