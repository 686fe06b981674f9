"""Forward passes of layers whose gradients are taken, in the place of their ``forward``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn, Tensor
from torch.compiler import is_dynamo_compiling

from .._torch import current_backward_pass, uncompiled
from .._tree import tensors
from ._rules import LayerRule
from ._torch import next_creation_number
from ._uses import attach, Compute, Layer, Receiver, rooted, Use


class Tracker(Receiver, Protocol):
    """What forward passes of layers tell about themselves."""

    grad: bool
    forward_pass: int
    tracking: bool
    notes_nodes: bool

    def note_backward_pass(self, number: int) -> None:
        """Note that a forward pass runs inside a backward pass."""

    def note_nodes(self, layer: Layer, first: int, end: int) -> None:
        """Note the numbers of the graph's nodes that a layer has made."""


class OwnForward(LayerRule):
    """A rule whose layer is run step by step, because its parts are no modules that are called."""

    @abstractmethod
    def run(self, taps: Taps, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the layer; each linear map that it computes is given to ``taps``."""


class TrackedForward:
    """Runs a layer in the place of its ``forward``, and has its output gradients received.

    Args:
        tracker: What it tells about the pass.
        layer: The layer.
        rule: Computes its per-example gradients.
        batch_dim: The dimension of examples.
    """

    def __init__(self, tracker: Tracker, layer: Layer, rule: LayerRule, batch_dim: int) -> None:
        self._tracker, self._layer, self._rule = tracker, layer, rule
        self._batch_dim = batch_dim
        self._forward: Callable[..., Any] = layer.module.forward
        self._before = vars(layer.module).get("forward")
        self._steps = isinstance(rule, OwnForward)
        self._parameters = [getattr(*owner) for owner in layer.owners.values()]
        layer.module.forward = self

    def remove(self) -> None:
        """Restore the layer's ``forward``."""
        module = self._layer.module
        if self._before is None:
            del module.forward
        else:
            module.forward = self._before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer."""
        if not torch.is_grad_enabled() or not self._tracker.tracking:
            return self._forward(*args, **kwargs)
        if is_dynamo_compiling():
            return self._track_uncompiled(args, kwargs)
        return self._track(args, kwargs)

    @uncompiled
    def _track_uncompiled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._track(args, kwargs)

    def _track(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        tracker, layer, rule = self._tracker, self._layer, self._rule
        if rule.depends_on_state:
            rule.check(layer.name, layer.module)
            if not layer.names:
                return self._forward(*args, **kwargs)
        made_in = current_backward_pass()
        if made_in is not None:
            tracker.note_backward_pass(made_in)
        remembered = rule.remember(layer.module) if rule.depends_on_state else None
        first = next_creation_number() if tracker.notes_nodes else 0
        output = self._run(made_in, args, kwargs)
        if not self._steps:
            if not (isinstance(output, Tensor) and output.requires_grad):
                output = _with_gradient(output)
            if rule.depends_on_state:
                remembered = rule.remember_output(remembered, output)
            given, dim = (args, kwargs), self._batch_dim
            output = attach(self._use(rule.gradients, given, dim, remembered, made_in), output)
        if tracker.notes_nodes:
            tracker.note_nodes(layer, first, next_creation_number())
        return output

    def _run(self, made_in: int | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the layer, with parameters that need no gradient where none is to be computed."""
        compute = self._forward
        if self._steps:
            compute = partial(self._run_steps, made_in)
        if self._tracker.grad:
            return compute(*args, **kwargs)
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        try:
            return compute(*args, **kwargs)
        finally:
            for parameter in self._parameters:
                parameter.requires_grad_(True)

    def _run_steps(self, made_in: int | None, *args: Any, **kwargs: Any) -> Any:
        assert isinstance(self._rule, OwnForward)  # the caller knows
        return self._rule.run(Taps(self._use, made_in), self._layer.module, args, kwargs)

    def _use(
        self,
        compute: Compute,
        given: tuple[tuple[Any, ...], Mapping[str, Any]],
        batch_dim: int,
        remembered: Any,
        made_in: int | None,
    ) -> Use:
        tracker, layer = self._tracker, self._layer
        number = tracker.forward_pass
        return Use(tracker, layer, compute, given, batch_dim, remembered, made_in, number)


def _with_gradient(output: Any) -> Any:
    """Return an output in which a tensor requires a gradient."""
    return output if any(found.requires_grad for found in tensors(output)) else rooted(output)


class Taps:
    """Records the linear maps of a layer that runs step by step.

    Args:
        use: Makes a use of the layer.
        made_in: Number of the backward pass that the layer runs in; None outside of one.
    """

    def __init__(self, use: Callable[..., Use], made_in: int | None) -> None:
        self._use, self._made_in = use, made_in

    def attach(self, output: Tensor, input: Tensor, compute: Compute, batch_dim: int) -> Tensor:
        """Return the output of a linear map, whose gradient will be received."""
        output = output if output.requires_grad else rooted(output)
        use = self._use(compute, ((input,), {}), batch_dim, None, self._made_in)
        attached: Tensor = attach(use, output)
        return attached


class RootForward:
    """Counts the forward passes of the network, in the place of its ``forward``.

    Args:
        network: The network.
        begin: Called before a forward pass.
        end: Called after it, also where it raised.
    """

    def __init__(
        self, network: nn.Module, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        self._network, self._begin, self._end = network, begin, end
        self._forward: Callable[..., Any] = network.forward
        self._before = vars(network).get("forward")
        network.forward = self

    def remove(self) -> None:
        """Restore the network's ``forward``."""
        if self._before is None:
            del self._network.forward
        else:
            self._network.forward = self._before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network."""
        if is_dynamo_compiling():
            return self._forward(*args, **kwargs)
        self._begin()
        try:
            return self._forward(*args, **kwargs)
        finally:
            self._end()
