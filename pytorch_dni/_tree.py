"""Finding tensors in what modules take and return, and replacing them."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


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


def map_tensors(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return a tree with ``function`` applied to each tensor in it."""
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, Mapping):
        # A copy keeps what a mapping of the user's own class has besides its items.
        changed: Any = copy.copy(output)
        for key, child in output.items():
            changed[key] = map_tensors(child, function)
        return changed
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(map_tensors(child, function) for child in output))
    if isinstance(output, (tuple, list)):
        return type(output)(map_tensors(child, function) for child in output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = [field.name for field in dataclasses.fields(output) if field.init]
        return dataclasses.replace(
            output, **{name: map_tensors(getattr(output, name), function) for name in names}
        )
    return output


def floating_tensors(output: object) -> list[Tensor]:
    """Return all floating-point tensors in a tree, in the order of :func:`map_floating`."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_floating(output, note)
    return found


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

    Args:
        output: The tree.
        replace: Called with all these tensors; returns as many.
        or_all: Replace all floating-point tensors where none requires a gradient.
    """
    found = differentiable_tensors(output)
    if or_all and not found:
        new = iter(replace(floating_tensors(output)))
        return map_floating(output, lambda tensor: next(new))
    new = iter(replace(found))
    return map_floating(output, lambda tensor: next(new) if tensor.requires_grad else tensor)
