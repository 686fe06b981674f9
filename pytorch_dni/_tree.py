"""Finding activations in what modules return, and putting others in their place."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Like: TypeAlias = "tuple[list[int], str]"  # shape and type of a tensor, as plain data


def first_activation(output: object) -> Tensor | None:
    """The first floating-point tensor in a module's output, which is where the module is cut.

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


def replaced(output: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """What a module returned, with ``fn`` applied to each floating-point tensor in it."""
    return mapped(output, lambda tensor: fn(tensor) if tensor.is_floating_point() else tensor)


def mapped(output: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """What a module takes or returns, with ``fn`` applied to each tensor in it."""
    if isinstance(output, Tensor):
        return fn(output)
    if isinstance(output, Mapping):
        # A copy keeps what a mapping of one's own class has besides its items.
        changed: Any = copy.copy(output)
        for key, child in output.items():
            changed[key] = mapped(child, fn)
        return changed
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(mapped(child, fn) for child in output))
    if isinstance(output, (tuple, list)):
        return type(output)(mapped(child, fn) for child in output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = [field.name for field in dataclasses.fields(output) if field.init]
        return dataclasses.replace(
            output, **{name: mapped(getattr(output, name), fn) for name in names}
        )
    return output


def like(tensor: Tensor) -> Like:
    """What :func:`zeros` makes another of the kind from."""
    return [*tensor.shape], str(tensor.dtype).removeprefix("torch.")


def zeros(like: Like, device: torch.device) -> Tensor:
    """A tensor of that shape and type."""
    shape, dtype = like
    return torch.zeros(shape, dtype=getattr(torch, dtype), device=device)


def floats(output: object) -> list[Tensor]:
    """All floating-point tensors in what a module takes or returns, in ``replaced``'s order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    replaced(output, note)
    return found
