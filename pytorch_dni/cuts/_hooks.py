"""Hooks that the wrapper puts into modules and on activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn
from torch.compiler import is_dynamo_compiling
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from .._backward_pass import note_module_call
from .._torch import compiles, forward_hooks, forward_pre_hooks, has_backward_hooks, uncompiled
from ..errors import describe, DNIError
from ._visible import hide, show

_suspended: ContextVar[bool] = ContextVar("suspended", default=False)


def innermost(network: nn.Module) -> nn.Module:
    """Return the network inside of ``DistributedDataParallel``, or the network itself.

    That wrapper searches the graph of the output for parameters before its own hooks run: the
    output must lead to all of them by then.
    """
    while isinstance(network, DistributedDataParallel):
        network = network.module
    return network


class ModuleHook:
    """Calls a method when a module runs; it shows that a module is wrapped.

    A class and no closure, so that wrapped networks can be copied and pickled.

    Args:
        method: Called with ``arguments`` and then what PyTorch gives a hook: the module, its
            arguments, and its keywords or its output.
        arguments: The first arguments of the method.
    """

    def __init__(self, method: Callable[..., Any], *arguments: Any) -> None:
        self._method = method
        self._arguments = arguments

    def __call__(self, *call: Any) -> Any:
        if _suspended.get():
            return None
        if is_dynamo_compiling():
            return self._run_uncompiled(*call)
        return self._run(*call)

    @uncompiled
    def _run_uncompiled(self, *call: Any) -> Any:
        return self._run(*call)

    def _run(self, *call: Any) -> Any:
        note_module_call()
        return self._method(*self._arguments, *call)


def check_backward_hooks(network: nn.Module, cut: str) -> None:
    """Raise where a module that a detached cut ends or divides has a backward hook.

    Args:
        network: The network, whose own hooks run at its output.
        cut: Name of the module whose output is detached.

    Raises:
        DNIError: There is one: the gradient of the module's output never reaches its input.
    """
    module, names = network, cut.split(".") if cut else []
    for depth, name in enumerate(names, 1):
        module = module.get_submodule(name)
        if has_backward_hooks(module):
            raise DNIError(
                f"{describe('.'.join(names[:depth]), module)} has a full backward hook, which "
                f"would not be called: eager and exact_every detach the cut {cut!r}. Register the "
                "hook on a module that lies between two cuts, or on a tensor, or leave eager and "
                "exact_every out"
            )


class Handles:
    """The hooks that one owner has registered."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._hooked: dict[nn.Module, None] = {}
        self._shows = False

    def __bool__(self) -> bool:
        return bool(self._handles)

    def before_forward(self, module: nn.Module, method: Callable[..., Any], *args: Any) -> None:
        """Call ``method(*args, module, call_args, call_kwargs)`` before a module runs."""
        hook = ModuleHook(method, *args)
        self._note(module, module.register_forward_pre_hook(hook, with_kwargs=True))

    def after_forward(
        self, module: nn.Module, method: Callable[..., Any], *args: Any, always: bool = False
    ) -> None:
        """Call ``method(*args, module, call_args, output)`` after a module has run.

        With ``always``, also where the module raised.
        """
        hook = ModuleHook(method, *args)
        self._note(module, module.register_forward_hook(hook, always_call=always))

    def _note(self, module: nn.Module, handle: RemovableHandle) -> None:
        self._handles.append(handle)
        self._hooked[module] = None
        if self._shows:
            show(module)

    def show(self) -> None:
        """Have code that ``torch.compile`` made for other modules of a class call the hooks.

        Call it before each run of the network: the user may compile something at any time.
        """
        if not self._shows and compiles():
            self._shows = True
            for module in self._hooked:
                show(module)

    def remove(self) -> None:
        """Remove all hooks."""
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()
        hooked, self._hooked = self._hooked, {}
        for module in hooked if self._shows else ():
            if not is_hooked(
                (*forward_hooks(module).values(), *forward_pre_hooks(module).values())
            ):
                hide(module)


@contextmanager
def suspended() -> Iterator[None]:
    """Have the hooks of wrappers do nothing in this scope: a network is run to place its cuts."""
    token = _suspended.set(True)
    try:
        yield
    finally:
        _suspended.reset(token)


def is_hooked(hooks: Iterable[Any]) -> bool:
    """Return whether there is a hook of the wrapper among some hooks."""
    return any(isinstance(hook, ModuleHook) for hook in hooks)
