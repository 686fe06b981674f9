"""Finding tensors in what modules take and return, and replacing them."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


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
