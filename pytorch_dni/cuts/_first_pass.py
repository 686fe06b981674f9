"""The first forward pass of training, in which cuts are placed while every layer learns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from .._torch import version
from .._tree import first_activation
from ..context import Context
from ..interfaces._error import OutputError
from ..placement import CutPlan, FirstRun
from ._errors import PassErrors
from ._factory import Interface
from ._hooks import Handles, suspended
from ._inputs import ForwardInputs
from ._methods import HookCuts
from ._visible import shown


class FirstPass:
    """An ordinary pass of training in which every layer that may be cut learns.

    Args:
        network: The network.
        first_run: Plans the cuts.
        inputs: The inputs of the forward pass.
        errors: Takes the error of the pass.
        hooks: Puts hooks on activations.
        apply: Called with the plan when the pass has ended; returns the interfaces by name.
    """

    def __init__(
        self,
        network: nn.Module,
        first_run: FirstRun,
        inputs: ForwardInputs,
        errors: PassErrors,
        hooks: HookCuts,
        apply: Callable[[CutPlan], Mapping[str, Interface]],
    ) -> None:
        self._network = network
        self._first_run = first_run
        self._inputs = inputs
        self._errors = errors
        self._hooks = hooks
        self._apply = apply
        self._built: Mapping[str, Interface] = {}
        # By activation, the modules that returned it; the recorded calls keep it alive.
        self._names: dict[tuple[int, int], list[str]] = {}
        self._watching = False
        self._ended = False
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        # The activations of a running pass belong to one network, not to its copy.
        return {**self.__dict__, "_names": {}}

    @property
    def needs_trace(self) -> bool:
        """Whether the graph has to be seen before any part learns."""
        return self._first_run.needs_trace

    def register(self, handles: Handles) -> None:
        """Register the hooks that record the calls of modules."""
        for name, module in self._first_run.watched().items():
            handles.after_forward(module, self._watch_call, name)
        handles.after_forward(self._network, self._end)

    def trace(self, args: tuple[Any, ...], kwargs: dict[str, Any], example: bool) -> CutPlan:
        """Run the network once as in training, and return the plan of that pass.

        Args:
            args: Arguments of the network.
            kwargs: Keywords of the network.
            example: Whether they are an example, and not those of a pass of training.
        """
        with suspended(), shown(self._first_run.watched().values()):
            return self._first_run.trace(args, kwargs, example)

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin the pass."""
        self.drop()
        self._watching = self._learning()
        if self._watching:
            self._inputs.begin(args, kwargs)
            self._errors.begin()

    def drop(self) -> None:
        """Drop what a pass that broke off has recorded."""
        self._watching = False
        self._clear()

    def _clear(self) -> None:
        self._first_run.clear()
        self._names = {}

    def end_for_good(self) -> None:
        """Note that the cuts are known: hooks that are still called do nothing."""
        self._ended = True

    def _learning(self) -> bool:
        return self._network.training and torch.is_grad_enabled()

    def _watch_call(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        context = self._inputs.context()
        # Checkpointed parts run without gradients at first, in a pass that has them.
        if self._ended or not (self._watching or self._learning()):
            return
        self._first_run.record(name, module, args, output)
        activation = first_activation(output)
        if activation is None or not activation.requires_grad:
            return
        # A block returns what its last module does: the activation is kept once.
        names = self._names.setdefault((id(activation), version(activation)), [])
        names.append(name)
        if len(names) == 1:
            exchange = partial(self._exchange, names, self._errors.current)
            self._hooks.add_hook(names, activation, context, True, exchange)

    def _exchange(
        self,
        names: Sequence[str],
        error: OutputError,
        trigger: Tensor,
        context: Context | None,
        grad: Tensor,
    ) -> Tensor | None:
        # The user may have called modules inside, and not the network, which ends the first pass.
        self._finish(None)
        if any(map(self._errors.is_source, names)):
            self._errors.give(error, grad)
            return None
        built = next((self._built[name] for name in names if name in self._built), None)
        return self._hooks.exchange(built, error, trigger, context, grad)

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._watching and not (self._first_run.has_calls or self._warned):
            self._warned = True
            warnings.warn(
                f"DNI has made no cut yet: in a training forward pass of "
                f"{type(self._network).__name__} no layer ran that it could cut, and the network "
                "learned by backpropagation. Call layers as modules, layer(x) and not "
                "layer.forward(x) or a function with its weight, and have them return tensors",
                stacklevel=2,
            )
        self._finish(output)
        self._errors.watch_output(output)

    def _finish(self, output: Any) -> None:
        if self._ended or not self._first_run.has_calls:
            self._inputs.end()
            return
        try:
            self._built = self._apply(self._first_run.plan(output))
        finally:
            self._clear()
            self._watching = False
            self._inputs.end()
