"""A ``forward`` with the signature of another module's, for tools that ask for it."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType, MethodType
from typing import Any

from torch import nn

_SELF = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)


def signed_forward(module: nn.Module, network: nn.Module) -> MethodType | None:
    """Return the ``forward`` of a module with the signature of a network's.

    Trainers drop what a forward pass does not take, and find labels by the names of its arguments.
    The method is one of Python's own with a function of its own: tools take its function, wrap it,
    and bind it again, and compilers read its code.

    Args:
        module: The module.
        network: The network.

    Returns:
        The method; None where the network's has no signature.
    """
    function = type(module).forward
    if not isinstance(function, FunctionType):
        return None
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):  # compiled functions have none
        return None
    code = function.__code__, function.__globals__, function.__name__
    signed: Any = FunctionType(*code, function.__defaults__, function.__closure__)
    functools.update_wrapper(signed, function)
    parameters = [_SELF, *signature.parameters.values()]
    # Python keeps these two apart from what update_wrapper copies.
    for name, value in (
        ("__kwdefaults__", function.__kwdefaults__),
        ("__signature__", signature.replace(parameters=parameters)),
    ):
        setattr(signed, name, value)
    del signed.__wrapped__
    return MethodType(signed, module)


def is_signed(module: nn.Module, method: Any) -> bool:
    """Return whether a module's method is one of :func:`signed_forward`, wrapped by no one."""
    if not isinstance(method, MethodType) or not isinstance(method.__func__, FunctionType):
        return False
    return method.__func__.__code__ is type(module).forward.__code__
