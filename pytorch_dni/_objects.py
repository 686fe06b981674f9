"""Finding and replacing tensors in objects of other classes than containers."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

from torch import nn, Tensor

from ._tree import map_tensors, tensors

_CLOSED = (type, FunctionType, ModuleType, nn.Module)  # not looked into for tensors
_MOST_VALUES = 10_000


def reachable_tensors(output: object) -> list[Tensor]:
    """Return the tensors of any type in a tree, and in attributes of objects of other classes.

    Such objects, as PyTorch's distributions and records of the user's own classes, cannot be
    changed by :func:`map_tensors`; this function looks into them to read alone.
    """
    found: list[Tensor] = []
    queue, seen = [output], {id(output)}
    for value in queue:
        if isinstance(value, Tensor):
            found.append(value)
            continue
        new = {id(child): child for child in _children(value) if id(child) not in seen}
        seen.update(new)
        queue += new.values()
        if len(queue) > _MOST_VALUES:
            break
    return found


def _children(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (tuple, list, set, frozenset)):
        return value
    if isinstance(value, _CLOSED):
        return ()
    slots = (getattr(kind, "__slots__", ()) for kind in type(value).__mro__)
    names = [name for own in slots for name in ((own,) if isinstance(own, str) else own)]
    return [
        *(getattr(value, name, None) for name in names),
        *getattr(value, "__dict__", {}).values(),
    ]


def replace_differentiable(
    output: Any, replace: Callable[[list[Tensor]], Sequence[Tensor]], or_all: bool = False
) -> Any:
    """Return a tree with other tensors in the place of those that require a gradient.

    Where no container shows such a tensor, plain objects such as distributions are searched too;
    those that hold one are replaced by copies.

    Args:
        output: The tree.
        replace: Called with all these tensors; returns as many.
        or_all: Replace all that could require a gradient where none does.
    """
    found, objects = _found(output, lambda tensor: tensor.requires_grad)
    if or_all and not found:
        found, objects = _found(output, lambda t: t.is_floating_point() or t.is_complex())
    new = dict(zip(map(id, found), replace(found), strict=True))

    def other_tensor(tensor: Tensor) -> Tensor:
        return new.get(id(tensor), tensor)

    return map_tensors(output, other_tensor, _ObjectCopies(new, other_tensor) if objects else None)


def _found(output: Any, fits: Callable[[Tensor], bool]) -> tuple[list[Tensor], bool]:
    """Return the tensors of a tree that fit, and whether they are in plain objects alone."""
    found = [tensor for tensor in tensors(output) if fits(tensor)]
    if found:
        return found, False
    inside = {id(tensor): tensor for tensor in _tensors_inside(output) if fits(tensor)}
    return [*inside.values()], True


def _tensors_inside(output: Any) -> list[Tensor]:
    """Return the tensors in a tree, and in the plain objects in it."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(output, note, _ObjectSearch(note))
    return found


class _ObjectSearch:
    """Applies a function to the tensors in plain objects, each object once.

    Args:
        function: Called with each tensor.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._seen: dict[int, object] = {}

    def __call__(self, item: Any) -> Any:
        if _is_plain(item) and id(item) not in self._seen:
            self._seen[id(item)] = item
            for value in vars(item).values():
                map_tensors(value, self._function, self)
        return item


class _ObjectCopies:
    """Replaces plain objects that hold one of some tensors by copies with the function's results.

    Args:
        chosen: The tensors, by their ids.
        function: Called with each tensor.
    """

    def __init__(self, chosen: Container[int], function: Callable[[Tensor], Tensor]) -> None:
        self._chosen = chosen
        self._function = function
        self._copies: dict[int, tuple[object, object]] = {}

    def __call__(self, item: Any) -> Any:
        if id(item) in self._copies:
            return self._copies[id(item)][1]
        chosen = self._chosen
        if not _is_plain(item) or not any(id(t) in chosen for t in _tensors_inside(item)):
            return item
        copied = object.__new__(type(item))
        self._copies[id(item)] = item, copied
        for name, value in vars(item).items():
            vars(copied)[name] = map_tensors(value, self._function, self)
        return copied


def _is_plain(item: object) -> bool:
    """Return whether an object is no more than its attributes: it can be copied by them alone."""
    kind = type(item)
    own = ("__copy__", "__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "__new__")
    return (
        hasattr(item, "__dict__")
        and not isinstance(item, (type, nn.Module))
        and all(getattr(kind, name, None) is getattr(object, name, None) for name in own)
        and not any(vars(base).get("__slots__") for base in kind.__mro__)
    )
