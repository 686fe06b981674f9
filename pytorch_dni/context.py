"""Contexts: what a synthesizer knows besides the activation, labels most of all (cDNI)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import ContextError, ContextShapeError

_IGNORED = -100  # the label that PyTorch's losses ignore
_MOST_RESIZED = 4  # dimensions of batch and positions that PyTorch can resize


class Context:
    """A context as the user gave it, and its encodings, each computed once in a scope.

    Args:
        raw: Integer class labels of shape ``(*leading)``, or floating-point features of shape
            ``(*leading, size)``; the leading shape is the batch, or the batch and positions in it.
    """

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw.detach()
        self._encoded: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def features(self, size: int, like: Tensor, owner: str) -> Tensor:
        """Return the context as features of shape ``(*leading, size)``.

        Args:
            size: Width of the features; labels are one-hot encoded to it.
            like: A tensor of the wanted type and device.
            owner: What an error message calls the interface.

        Raises:
            ContextError: Labels lie outside ``0 .. size - 1``, or the features are not ``size``
                wide.
        """
        key = (size, like.dtype, like.device)
        if key not in self._encoded:
            if self.raw.is_floating_point():
                self._encoded[key] = self._checked_features(size, owner).to(*reversed(key[1:]))
            else:
                self._encoded[key] = self._one_hot(size, like, owner)
        return self._encoded[key]

    def _checked_features(self, size: int, owner: str) -> Tensor:
        if self.raw.dim() == 0 or self.raw.shape[-1] != size:
            raise ContextError(
                f"{owner}: the context has shape {tuple(self.raw.shape)}, but its last "
                f"dimension must be context_size={size}"
            )
        return self.raw

    def _one_hot(self, size: int, like: Tensor, owner: str) -> Tensor:
        labels = self.raw.to(like.device, torch.int64)
        _check_range(labels, size, owner)
        zeros = torch.zeros(*labels.shape, size, dtype=like.dtype, device=like.device)
        return zeros.scatter_(-1, labels.unsqueeze(-1), 1)

    def target(self, size: int, like: Tensor, owner: str) -> Tensor:
        """Return the context as a target to be predicted: labels as they are, features as floats.

        Raises:
            ContextError: As in :meth:`features`. The label -100, which losses ignore, is allowed.
        """
        if self.raw.is_floating_point():
            return self.features(size, like, owner)
        key = (0, torch.int64, like.device)
        if key not in self._encoded:
            labels = self.raw.to(like.device, torch.int64)
            _check_range(labels.masked_fill(labels == _IGNORED, 0), size, owner)
            self._encoded[key] = labels
        return self._encoded[key]

    def joined(self, trigger: Tensor, size: int, feature_dim: int, owner: str) -> Tensor:
        """Return the trigger with the context as further features, or channels.

        Raises:
            ContextError: As in :meth:`broadcast_to_trigger`.
        """
        broadcast = self.broadcast_to_trigger(trigger, size, feature_dim, owner)
        if feature_dim != -1:
            broadcast = broadcast.movedim(-1, feature_dim)
        return torch.cat([trigger, broadcast], dim=feature_dim)

    def fits(self, trigger: Tensor, size: int, feature_dim: int) -> bool:
        """Return whether these features have a size and can be broadcast to a trigger."""
        positions = [*trigger.shape]
        del positions[feature_dim]
        if self.raw.dim() == 0 or self.raw.shape[-1] != size:
            return False
        return _broadcast(self.raw, positions) is not None

    def broadcast_to_trigger(
        self, trigger: Tensor, size: int, feature_dim: int, owner: str
    ) -> Tensor:
        """Return the context at each position of the trigger: shape ``(*positions, size)``.

        The leading shape of the context is matched with the trigger's dimensions (features left
        out) from the first one on, or, where it does not fit there, up to the last one (time-major
        sequences); missing dimensions are broadcast. A map of another resolution than the
        trigger's, such as labels ``(batch, height, width)`` after a pooling layer, is resized by
        nearest neighbours.

        Raises:
            ContextError: As in :meth:`features`, or the shapes do not fit each other.
        """
        positions = [*trigger.shape]
        del positions[feature_dim]
        features = self.features(size, trigger, owner)
        if features.shape[:-1] == (*positions,):
            return features
        broadcast = _broadcast(features, positions)
        if broadcast is None:
            raise ContextShapeError(
                f"{owner}: a context of shape {tuple(self.raw.shape)} does not fit an "
                f"activation of shape {tuple(trigger.shape)}: give one row for each of the "
                f"activation's {positions[0] if positions else 1} samples"
            )
        return broadcast


def check_no_context(context: Context | None, owner: str) -> None:
    """Raise :class:`ContextError` where an interface that takes no context is given one."""
    if context is not None:
        raise ContextError(
            f"{owner} got a context, but takes none: give DNI context_size="
            "(the number of classes, or of features), or leave synthesizer_context out"
        )


def _check_kind(context: object) -> None:
    if not isinstance(context, Tensor):
        raise ContextError(
            f"a context must be a tensor of labels or of features, not {type(context).__name__}"
        )
    if context.is_complex() or context.layout != torch.strided:
        raise ContextError(
            "a context must be a dense tensor of integer labels or of floating-point features, "
            f"not of {context.dtype} with layout {context.layout}"
        )
    # On an accelerator the check would stall the queue.
    on_cpu = context.is_floating_point() and context.device.type == "cpu"
    if on_cpu and not context.isfinite().all():
        raise ContextError("a context holds numbers that are not finite: replace them")


def _check_range(labels: Tensor, size: int, owner: str) -> None:
    # On an accelerator the check would stall the queue; scatter_ asserts there by itself.
    if labels.device.type != "cpu" or not labels.numel():
        return
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0 or high >= size:
        raise ContextError(
            f"{owner}: labels run from {low} to {high}, but context_size={size} "
            f"allows 0 to {size - 1}; raise context_size, or mask such labels"
        )


def _broadcast(features: Tensor, positions: list[int]) -> Tensor | None:
    """Expand features ``(*leading, size)`` to ``(*positions, size)``; None where they don't fit."""
    leading, size = [*features.shape[:-1]], features.shape[-1]
    missing = len(positions) - len(leading)
    if missing < 0:
        return None
    if leading == positions[: len(leading)]:
        shape = [*leading, *[1] * missing, size]
    elif leading == positions[missing:]:
        shape = [*[1] * missing, *leading, size]
    elif is_of_other_resolution(leading, positions):
        return resized(features, positions[1:])
    else:
        return None
    return features.reshape(shape).expand(*positions, size)


def is_of_other_resolution(leading: Sequence[int], positions: Sequence[int]) -> bool:
    """Return whether a map or sequence can be resized to the positions of an activation.

    Args:
        leading: Shape of the context without its features.
        positions: Shape of the activation without its features.
    """
    same_kind = len(leading) == len(positions) and 1 < len(positions) <= _MOST_RESIZED
    return same_kind and leading[0] == positions[0] and all(leading) and all(positions)


def resized(features: Tensor, positions: Sequence[int]) -> Tensor:
    """Resize features ``(batch, *other, size)`` to positions by nearest neighbours."""
    maps = features.movedim(-1, 1)
    return F.interpolate(maps, size=[*positions], mode="nearest").movedim(1, -1)


_current: ContextVar[Context | None] = ContextVar("synthesizer_context", default=None)


def current_context() -> Context | None:
    """Return the context of the innermost open scope in this thread or task; None without one."""
    return _current.get()


@contextmanager
def synthesizer_context(context: Tensor | None) -> Iterator[None]:
    """Give synthesizers a context for the forward passes run in this scope.

    Scopes nest (the innermost counts; ``None`` hides the outer ones), do not reach into other
    threads or asynchronous tasks, and end when their body raises.

    Args:
        context: Integer class labels, shape ``(batch,)`` or ``(batch, *positions)``, which are
            one-hot encoded to the interface's ``context_size``; or floating-point features, shape
            ``(batch, context_size)`` or ``(batch, *positions, context_size)``, taken as they are.
            Jaderberg et al. 2017, section 3.1: conditional DNI, cDNI.

    Raises:
        ContextError: It is no dense tensor of integers or of finite floating-point numbers.

    Example::

        with synthesizer_context(labels):
            output = net(images)
    """
    if context is not None:
        _check_kind(context)
    token = _current.set(None if context is None else Context(context))
    try:
        yield
    finally:
        _current.reset(token)
