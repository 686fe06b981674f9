"""Finding tensors in what modules take and return, and replacing them."""

import copy
import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor

_CLOSED = (type, FunctionType, ModuleType, torch.nn.Module)  # not looked into for tensors
_MOST_VALUES = 10_000


def sizes(value: Any) -> list[int]:
    """Return a saved list of sizes; ``TypeError`` or ``ValueError`` where it is none."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.dim() != 1:
        raise TypeError(f"{value!r} is no list of whole numbers")
    if (value < 0).any():
        raise ValueError(f"{value.tolist()} holds negative sizes")
    return [*value.tolist()]


class TensorSpec(NamedTuple):
    """Shape and type of a tensor.

    Attributes:
        shape: Sizes of the dimensions.
        dtype: Name of the type, without ``torch.``.
    """

    shape: list[int]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorSpec":
        """Return the specification of a tensor."""
        return cls([*tensor.shape], str(tensor.dtype).removeprefix("torch."))

    def state_dict(self) -> dict[str, Any]:
        """Return the specification as plain data and tensors."""
        # A tensor, whose size does not change with the numbers in it.
        shape = torch.tensor(self.shape, dtype=torch.int64, device="cpu")
        return {"shape": shape, "dtype": self.dtype}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "TensorSpec":
        """Return a specification that was saved."""
        return cls(sizes(state["shape"]), state["dtype"])

    def zeros(self, device: torch.device) -> Tensor:
        """Return a tensor of zeros of this shape and type.

        Raises:
            ValueError: The shape or the type is none.
        """
        dtype = getattr(torch, self.dtype, None) if isinstance(self.dtype, str) else None
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{self.dtype!r} is not the name of a tensor type")
        if not all(isinstance(size, int) and size >= 0 for size in self.shape):
            raise ValueError(f"{self.shape!r} is not the shape of a tensor")
        return torch.zeros(self.shape, dtype=dtype, device=device)


def first_activation(output: object) -> Tensor | None:
    """Return the first floating-point tensor in a module's output, where the module is cut.

    Looks through tuples, lists, mappings and dataclasses, so that ``(sequence, state)`` of a
    recurrent module gives its sequence and a model-output record its first field.
    """
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    children: Sequence[object]
    if isinstance(output, Mapping):
        children = list(output.values())
    elif isinstance(output, (tuple, list)):
        children = output
    elif dataclasses.is_dataclass(output):
        children = [getattr(output, field.name) for field in dataclasses.fields(output)]
    else:
        return None
    for child in children:
        found = first_activation(child)
        if found is not None:
            return found
    return None


def map_floating(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return a tree with ``function`` applied to each floating-point tensor in it."""
    return map_tensors(
        output, lambda tensor: function(tensor) if tensor.is_floating_point() else tensor
    )


def map_tensors(
    output: Any, function: Callable[[Tensor], Tensor], other: Callable[[Any], Any] | None = None
) -> Any:
    """Return a tree with ``function`` applied to each tensor in it.

    Args:
        output: The tree.
        function: Called with each tensor.
        other: Called with what is neither a tensor nor a container, in whose place its result is.
    """
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, Mapping):
        # A copy keeps what a mapping of the user's own class has besides its items.
        changed: Any = copy.copy(output)
        for key, child in output.items():
            changed[key] = map_tensors(child, function, other)
        return changed
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(map_tensors(child, function, other) for child in output))
    if isinstance(output, (tuple, list)):
        return type(output)(map_tensors(child, function, other) for child in output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = [field.name for field in dataclasses.fields(output) if field.init]
        return dataclasses.replace(
            output,
            **{name: map_tensors(getattr(output, name), function, other) for name in names},
        )
    return output if other is None else other(output)


def floating_tensors(output: object) -> list[Tensor]:
    """Return all floating-point tensors in a tree, in the order of :func:`map_floating`."""
    return [tensor for tensor in tensors(output) if tensor.is_floating_point()]


def tensors(output: object) -> list[Tensor]:
    """Return all tensors in a tree, in the order of :func:`map_tensors`."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(output, note)
    return found


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


def tensor_shapes(tree: object) -> tuple[object, ...]:
    """Return the shapes of all tensors in tuples, lists and mappings, nested as they are."""
    if isinstance(tree, Tensor):
        return tree.shape
    if isinstance(tree, Mapping):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return ()
    return tuple([tensor_shapes(child) for child in tree])


def differentiable_tensors(output: object) -> list[Tensor]:
    """Return the floating-point tensors in a tree that require a gradient."""
    return [tensor for tensor in floating_tensors(output) if tensor.requires_grad]


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
    found = [tensor for tensor in _tensors(output, None) if fits(tensor)]
    if found:
        return found, False
    inside = _tensors(output, _ObjectSearch)
    return [*{id(tensor): tensor for tensor in inside if fits(tensor)}.values()], True


def _tensors(output: Any, search: "type[_ObjectSearch] | None") -> list[Tensor]:
    """Return the tensors in a tree; those in plain objects too where a search is given."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(output, note, None if search is None else search(note))
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
        if not _is_plain(item) or not any(id(t) in chosen for t in _tensors(item, _ObjectSearch)):
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
