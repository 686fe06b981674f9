"""Hooks that compiled code notices.

``torch.compile`` uses its code again for other modules of the same class. It checks much before,
but not whether they have hooks that the first ones lacked. It does check that a module has no
``forward`` of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from .._torch import compiles

_OWN = "forward"


def show(module: nn.Module) -> None:
    """Have code that was compiled for modules of the same class not be used for a module.

    It gets the ``forward`` of its class as an attribute of its own, unless it has one.
    """
    kind = type(module)
    plain = isinstance(inspect.getattr_static(kind, _OWN, None), FunctionType)
    # Lazy modules change their class; classes with copies of their own copy attributes one by one.
    alone = isinstance(module, LazyModuleMixin) or hasattr(kind, "__deepcopy__")
    if plain and not alone:
        vars(module).setdefault(_OWN, MethodType(getattr(kind, _OWN), module))


def hide(module: nn.Module) -> None:
    """Remove what :func:`show` has put into a module."""
    if own_forward(module) is None:
        vars(module).pop(_OWN, None)


@contextmanager
def shown(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Show modules in this scope, where ``torch.compile`` is in use."""
    modules = [*modules] if compiles() else []
    for module in modules:
        show(module)
    try:
        yield
    finally:
        for module in modules:
            hide(module)


def own_forward(module: nn.Module) -> object:
    """Return the ``forward`` that a module has got from others; None where it is its class's."""
    own = vars(module).get(_OWN)
    if isinstance(own, MethodType) and own.__self__ is module:
        return None if own.__func__ is getattr(type(module), _OWN, None) else own
    return own
