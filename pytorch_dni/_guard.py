"""A warning where a network does not learn from its synthetic gradients."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from ._tree import differentiable_tensors
from .cuts import InterfaceSet, UpdatePolicy
from .interfaces._learner import Learner

_EVERY = 10  # one step of so many is measured, after the first ones
_FIRST = 8  # steps that say how large the gradient was before training
_CHECK = 100  # steps from one check to the next
_CHECKED_FROM = 400
# On MNIST, ways that learn were at 0.7 or less after 100 steps, and two that did not (six layers
# without normalisation, synthesizers that see the activation alone, or with the label) at 1.00
# after 600.
_NOT_SMALLER = 0.95


class LearningGuard:
    """Warns once where the gradient of the loss at the output does not become smaller.

    For the usual losses it becomes smaller as the loss does, and no label is needed to see it. The
    cosine similarity of ``stats()`` does not show this: true gradients there are bootstrapped, and
    in networks that did not learn at all it was 0.2 to 0.9. One step of ten is measured, and
    numbers are read from the device once in a hundred steps.

    Nothing is said of networks with several outputs, on the meta device, where true gradients are
    mixed in (``bp_lambda``), under autocast (gradient scaling changes the size), of a run that was
    resumed (its first gradients are not known), and of losses whose gradient has one size always
    (L1).

    Args:
        learner: Counts the steps.
        policy: Says whether synthetic gradients are in use.
        owner: Name of the network's class.
        interfaces: The interfaces of cuts in space.
    """

    def __init__(
        self,
        learner: Learner,
        policy: UpdatePolicy,
        owner: str,
        interfaces: InterfaceSet,
    ) -> None:
        self._learner = learner
        self._policy = policy
        self._owner = owner
        self._interfaces = interfaces
        self._before: float | None = None  # root mean square of the first steps
        self._shape: torch.Size | None = None
        self._squares: list[Tensor] = []
        self._next = _FIRST
        self._found = 0  # checks in a row that found it not smaller
        self._silent = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy is another run, and its first gradients are not known.
        return {**self.__dict__, "_squares": [], "_silent": True}

    def watch(self, output: Any) -> None:
        """Measure the gradient of the output of a forward pass in training, if that is due."""
        if self._silent:
            return
        if self._policy.bp_lambda != 0:
            self._silent = True
            return
        steps = self._learner.steps
        if steps >= self._next:
            self._check(steps)
        elif steps < _FIRST or steps % _EVERY == 0:
            self._measure(output)

    def _measure(self, output: Any) -> None:
        tensors = differentiable_tensors(output)
        if len(tensors) != 1 or self._learner.loads or _has_no_size(tensors[0]):
            self._silent = True
        elif self._shape is None or tensors[0].shape == self._shape:
            # The gradient of a mean is larger in a smaller batch.
            self._shape = tensors[0].shape
            tensors[0].register_hook(self._take)

    def _take(self, grad: Tensor | None) -> None:
        if grad is not None:
            self._squares.append(grad.detach().square().mean())

    def _check(self, steps: int) -> None:
        squares, self._squares = self._squares, []
        if not squares:
            self._silent = self._before is None
            self._next = steps + _CHECK
            return
        found = torch.stack(squares).double()
        size = math.sqrt(float(found.mean()))
        if self._before is None:
            self._before, self._next = size, _CHECKED_FROM
            return
        self._next = steps + _CHECK
        constant = float(found.max() - found.min()) <= 1e-6 * float(found.max())
        smaller = not size >= _NOT_SMALLER * self._before  # also where it is not a number
        self._found = 0 if smaller or constant else self._found + 1
        if self._found == 2:
            self._silent = True
            self._warn(steps, size / max(self._before, 1e-37))

    def _warn(self, steps: int, ratio: float) -> None:
        cosines = {name: found.stats().cosine for name, found in self._interfaces.by_name.items()}
        known = {name: value for name, value in cosines.items() if math.isfinite(value)}
        lowest = ""
        if known:
            name = min(known, key=lambda cut: known[cut])
            lowest = f"; the lowest cosine similarity of stats() is {known[name]:.2f}, at {name!r}"
        warnings.warn(
            f"DNI: {self._owner} does not seem to learn: after {steps} steps the gradient of the "
            f"loss at the output is {ratio:.2f} times as large as before training{lowest}. What "
            "helps, in this order: unlock='backward', the default without eager; labels as "
            "context (context_size, synthesizer_context); exact_every=4, or a warm-up with "
            "bp_lambda=1; a smaller learning rate of the network; fewer cuts (layers=N). "
            "net.audit() compares with the exact gradients. Ignore this where the loss is not "
            "expected to fall",
            stacklevel=2,
        )


def _has_no_size(tensor: Tensor) -> bool:
    """Return whether the size of a tensor's gradient tells nothing of the loss."""
    return tensor.is_meta or torch.is_autocast_enabled(tensor.device.type)
