"""Resolving the user's ``layers`` to qualified names of modules in the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeAlias

from torch import nn, Tensor

from ..errors import describe, SelectionError
from ._layers import has_weight, outer_modules, why_uncut

LayerSpec: TypeAlias = "str | type[nn.Module] | nn.Module | Callable[[str, nn.Module], bool]"
Layers: TypeAlias = "int | LayerSpec | Iterable[LayerSpec] | None"

_LISTED = 40  # how many modules an error message lists
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


class Selection(NamedTuple):
    """Which modules to cut at.

    Attributes:
        named: Modules given by name or as modules: they are always cut.
        found: Modules matched by pattern, type or predicate, or found automatically: the one that
            runs last may be left out.
        automatic: Whether ``found`` was found by ``layers=None``.
        parts: Number of parts of about equal cost, where the user gave only that.
    """

    named: tuple[str, ...]
    found: tuple[str, ...]
    automatic: bool
    parts: int | None = None


def select(network: nn.Module, layers: Layers, skip_last_layer: bool) -> Selection:
    """Resolve ``layers`` against the network, as far as possible without running it.

    Raises:
        SelectionError: A module is not in the network; the message lists the modules there are.
    """
    modules = dict(network.named_modules())
    if layers is None:
        return Selection((), _automatic(modules, outer_modules(network), skip_last_layer), True)
    if isinstance(layers, int) and not isinstance(layers, bool):
        if layers < 2:
            raise SelectionError(
                f"layers={layers}: a number says into how many parts to cut, and must be 2 or more"
            )
        return Selection((), tuple(outer_modules(network)), False, layers)
    named: list[str] = []
    found: list[str] = []
    for spec in _specs(layers):
        names, exact = _matches(spec, modules)
        if not names:
            raise SelectionError(f"layers: {_wording(spec)} in the network. {_inventory(modules)}")
        reasons = {name: why_uncut(network, name) for name in names}
        if exact and reasons[names[0]] is not None:
            raise SelectionError(
                f"layers: {describe(names[0], modules[names[0]])} cannot be cut: "
                f"{reasons[names[0]]}. Name another module"
            )
        possible = [name for name in names if reasons[name] is None]
        (named if exact else found).extend(possible)
    if not named and not found:
        raise SelectionError(f"layers is empty: name at least one module. {_inventory(modules)}")
    unique = dict.fromkeys(named)
    return Selection(
        tuple(unique), tuple(n for n in dict.fromkeys(found) if n not in unique), False
    )


def _automatic(
    modules: dict[str, nn.Module], outer: dict[str, nn.Module], skip_last_layer: bool
) -> tuple[str, ...]:
    weighted = [name for name, module in outer.items() if has_weight(module)]
    candidates = [name for name in weighted if not isinstance(modules[name], _RECURRENT)]
    if not candidates or (skip_last_layer and len(weighted) < 2):
        raise SelectionError(
            "layers=None finds no place to cut: it takes layers with a weight of two or more "
            "dimensions (Linear, convolutions, Embedding, ...), but not recurrent ones, and not "
            f"the last one that runs. Name modules in layers. {_inventory(modules)}"
        )
    return tuple(candidates)


def _specs(layers: Layers) -> Iterator[LayerSpec]:
    # Containers such as nn.Sequential are iterable, but stand for themselves.
    single = isinstance(layers, (str, type, nn.Module, Tensor))
    if single or not isinstance(layers, Iterable):
        if not (isinstance(layers, (str, type, nn.Module)) or callable(layers)):
            raise SelectionError(
                "layers takes names, patterns, module types, modules, a predicate (name, module) "
                f"or an iterable of these, not {type(layers).__name__}"
            )
        yield layers
        return
    for spec in layers:
        if not (isinstance(spec, (str, nn.Module)) or callable(spec)):
            raise SelectionError(f"layers holds a {type(spec).__name__}: {spec!r}")
        yield spec


def _matches(spec: LayerSpec, modules: dict[str, nn.Module]) -> tuple[list[str], bool]:
    """Return the names that a specification matches, and whether it names them exactly."""
    inner = {name: module for name, module in modules.items() if name}
    if isinstance(spec, str):
        if spec in inner:
            return [spec], True
        pattern = spec.split(".")
        return [name for name in inner if _fits(name.split("."), pattern)], False
    if isinstance(spec, nn.Module):
        return [name for name, module in inner.items() if module is spec], True
    if isinstance(spec, type):
        return [name for name, module in inner.items() if isinstance(module, spec)], False
    return [name for name, module in inner.items() if spec(name, module)], False


def _fits(name: list[str], pattern: list[str]) -> bool:
    """Return whether dotted names match: ``*`` matches one part, ``**`` any number of parts."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_fits(name[skip:], pattern[1:]) for skip in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def _wording(spec: LayerSpec) -> str:
    if isinstance(spec, str):
        return f"no module is called, or matches, {spec!r}"
    if isinstance(spec, nn.Module):
        return f"the given {type(spec).__name__} is not a module inside"
    if isinstance(spec, type):
        return f"there is no {spec.__name__}"
    return f"the predicate {getattr(spec, '__name__', spec)!r} holds for no module"


def _inventory(modules: dict[str, nn.Module]) -> str:
    names = [describe(name, module) for name, module in modules.items() if name]
    listed = ", ".join(names[:_LISTED]) or "no modules inside"
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"There is: {listed}{more}"
