"""Trees of plain data as flat dicts of tensors, which every tool for checkpoints can save."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._torch import storage_number

#: The entry that holds texts, and how the others are put together: canonical JSON in UTF-8.
STRUCTURE = "structure"
_NUMBERS: dict[type, torch.dtype] = {
    bool: torch.bool,
    int: torch.int64,
    float: torch.float64,
}
# Tags of the lists that stand for entries in the structure.
_TENSOR, _NUMBER, _FIXED = "tensor", "number", "fixed"
_SEQUENCES: dict[str, type] = {"list": list, "tuple": tuple}


class Fixed(NamedTuple):
    """Plain data that JSON can hold and training does not change; it is no tensor of its own.

    Attributes:
        value: The data.
    """

    value: Any


def flatten(tree: Any, beside: Iterable[Any] = ()) -> dict[str, Tensor]:
    """Return a tree as tensors: contiguous, detached, and none in the memory of another.

    Numbers become 0-dimensional tensors on the CPU. All else becomes one tensor of bytes, which
    has the same length as long as no tensor changes its shape and nothing comes or goes.

    Args:
        tree: Dicts with texts as keys, lists and tuples of tensors, numbers, texts, None and
            :class:`Fixed`.
        beside: Values that are saved beside them; entries get memory of their own as well.

    Raises:
        TypeError: It holds something else; the message says where.
    """
    entries: dict[str, Tensor] = {}
    taken = {storage_number(tensor) for tensor in beside if type(tensor) is Tensor}

    def add(key: str, value: Any) -> Any:
        for kind in _NUMBERS:
            if isinstance(value, kind):
                entries[key] = _number_tensor(key, kind(value))
                return [_NUMBER, kind.__name__]
        tensor = _separate(key, value, taken)
        entries[key] = tensor
        return [_TENSOR, _dtype_name(tensor), [*tensor.shape]]

    structure = _walk(tree, _Keys(), "", add)
    text = json.dumps(structure, separators=(",", ":"), allow_nan=False)
    entries[STRUCTURE] = torch.tensor([*text.encode()], dtype=torch.uint8, device="cpu")
    return entries


def unflatten(entries: Mapping[str, Any]) -> Any:
    """Return the tree that :func:`flatten` was given, with copies of the tensors.

    Raises:
        KeyError, TypeError, ValueError: An entry is missing, is one too many, or is not what the
            structure says.
    """
    keys = _Keys()
    tree = _build(json.loads(_bytes(entries[STRUCTURE]).decode()), keys, "", entries)
    unused = entries.keys() - keys.used - {STRUCTURE}
    if unused:
        raise ValueError(f"entries {sorted(map(str, unused))} belong to nothing")
    return tree


class _Keys:
    """Gives each place in a tree its own key."""

    def __init__(self) -> None:
        self.used = {STRUCTURE}

    def take(self, path: str) -> str:
        """Return a key for a path; names with dots can give two places the same path."""
        while path in self.used:
            path += "_"
        self.used.add(path)
        return path


def _walk(tree: Any, keys: _Keys, path: str, add: Callable[[str, Any], Any]) -> Any:
    """Return the structure of a tree, and add what becomes an entry."""
    if tree is None or isinstance(tree, str):
        return tree
    if isinstance(tree, Fixed):
        return [_FIXED, tree.value]
    if isinstance(tree, Mapping):
        if not all(isinstance(key, str) for key in tree):
            raise TypeError(f"{path!r} holds a mapping whose keys are no texts")
        return {key: _walk(child, keys, _join(path, key), add) for key, child in tree.items()}
    if type(tree) in _SEQUENCES.values():
        walk = enumerate(tree)
        walked = [_walk(child, keys, _join(path, str(i)), add) for i, child in walk]
        return [type(tree).__name__, *walked]
    if isinstance(tree, (*_NUMBERS, Tensor)):
        return add(keys.take(path), tree)
    raise TypeError(f"{path!r} holds {type(tree).__name__}, which cannot be saved as tensors")


def _build(structure: Any, keys: _Keys, path: str, entries: Mapping[str, Any]) -> Any:
    if structure is None or isinstance(structure, str):
        return structure
    if isinstance(structure, dict):
        return {k: _build(child, keys, _join(path, k), entries) for k, child in structure.items()}
    if not isinstance(structure, list) or not structure:
        raise TypeError(f"the structure holds {structure!r}")
    tag, *given = structure
    if tag in _SEQUENCES:
        children = enumerate(given)
        return _SEQUENCES[tag](_build(c, keys, _join(path, str(i)), entries) for i, c in children)
    if tag == _FIXED:
        (value,) = given
        return value
    if tag not in (_NUMBER, _TENSOR):
        raise TypeError(f"the structure holds {tag!r}")
    key = keys.take(path)
    if tag == _NUMBER:
        (kind,) = given
        return read_number(entries[key], kind, key)
    dtype, shape = given
    return _read_tensor(entries[key], dtype, shape, key)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _number_tensor(key: str, value: float) -> Tensor:
    try:
        # On the CPU, and not on the user's default device.
        return torch.tensor(value, dtype=_NUMBERS[type(value)], device="cpu")
    except (OverflowError, RuntimeError) as error:
        raise TypeError(f"{key!r} holds {value}, which no tensor can hold") from error


def _separate(key: str, tensor: Tensor, taken: set[int]) -> Tensor:
    """Return a tensor by itself in its memory."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(f"{key!r} holds a tensor of layout {tensor.layout}, which is not supported")
    whole = tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
    # Others can be views of the same memory, or leave most of it unused.
    whole = whole and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    if not whole or storage_number(tensor) in taken:
        tensor = tensor.clone(memory_format=torch.contiguous_format).resolve_conj().resolve_neg()
    taken.add(storage_number(tensor))
    return tensor


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_entry(value: Any, key: str) -> Tensor:
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        raise TypeError(f"entry {key!r} is no plain tensor with values")
    return value.detach()


def read_number(value: Any, kind: str, key: str) -> bool | int | float:
    """Return the number that a saved tensor holds.

    Args:
        value: The tensor.
        kind: Name of the number's type.
        key: What the error message calls it.

    Raises:
        KeyError, TypeError: It is no such tensor.
    """
    tensor = _check_entry(value, key)
    dtype = {number.__name__: dtype for number, dtype in _NUMBERS.items()}[kind]
    if tensor.dtype != dtype or tensor.dim():
        raise TypeError(
            f"entry {key!r} was saved as a number in {dtype}, and is of shape "
            f"{tuple(tensor.shape)} in {tensor.dtype}"
        )
    number: bool | int | float = tensor.item()
    return number


def _read_tensor(value: Any, dtype: str, shape: list[int], key: str) -> Tensor:
    tensor = _check_entry(value, key)
    if _dtype_name(tensor) != dtype or [*tensor.shape] != shape:
        raise TypeError(
            f"entry {key!r} was saved with shape {shape} in {dtype}, and has shape "
            f"{[*tensor.shape]} in {_dtype_name(tensor)}"
        )
    # What is loaded must not change with the tensors that it was loaded from.
    return tensor.clone(memory_format=torch.contiguous_format)


def _bytes(value: Any) -> bytes:
    tensor = _check_entry(value, STRUCTURE)
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise TypeError(f"entry {STRUCTURE!r} is no list of bytes")
    return bytes(tensor.tolist())
