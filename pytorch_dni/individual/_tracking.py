"""Forward passes of layers whose gradients are taken, in the place of their ``forward``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn, Tensor
from torch.compiler import is_dynamo_compiling

from .._torch import current_backward_pass, uncompiled
from .._tree import tensors
from ._rules import LayerRule
from ._torch import exchange_parameters, next_creation_number, refresh_flat_weights
from ._uses import attach, Compute, Layer, Receiver, rooted, Use


class Tracker(Receiver, Protocol):
    """What forward passes of layers tell about themselves."""

    grad: bool
    forward_pass: int

    def is_tracking(self) -> bool:
        """Return whether uses are to be recorded now."""

    def note_backward_pass(self, number: int) -> None:
        """Note that a forward pass runs inside a backward pass."""

    def note_nodes(self, layer: Layer, first: int, end: int) -> None:
        """Note the numbers of the graph's nodes that a layer has made."""


class OwnForward(LayerRule):
    """A rule whose layer is run step by step, because its parts are no modules that are called."""

    def run(self, taps: Taps, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the layer; each linear map that it computes is given to ``taps``."""
        raise NotImplementedError


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
        if not torch.is_grad_enabled() or not self._tracker.is_tracking():
            return self._forward(*args, **kwargs)
        if is_dynamo_compiling():
            return self._track_uncompiled(args, kwargs)
        return self._track(args, kwargs)

    @uncompiled
    def _track_uncompiled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._track(args, kwargs)

    def _track(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        tracker = self._tracker
        module, rule = self._layer.module, self._rule
        rule.check(self._layer.name, module)
        if not self._layer.names:
            return self._forward(*args, **kwargs)
        made_in = current_backward_pass()
        if made_in is not None:
            tracker.note_backward_pass(made_in)
        remembered = rule.remember(module)
        first = next_creation_number()
        output = self._run(made_in, args, kwargs)
        if not self._steps:
            if not any(tensor.requires_grad for tensor in tensors(output)):
                output = rooted(output)
            remembered = rule.remember_output(remembered, output)
            use = self._use(rule.gradients, args, kwargs, self._batch_dim, remembered, made_in)
            output = attach(use, output)
        tracker.note_nodes(self._layer, first, next_creation_number())
        return output

    def _run(self, made_in: int | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the layer, with parameters that need no gradient where none is to be computed."""
        if self._tracker.grad:
            return self._computed(made_in, args, kwargs)
        module = self._layer.module
        replaced: list[tuple[nn.Module, dict[str, Tensor]]] = []
        try:
            for owner, name in self._layer.owners.values():
                detached = getattr(owner, name).detach()
                replaced.append((owner, exchange_parameters(owner, {name: detached})))
            return self._computed(made_in, args, kwargs)
        finally:
            for owner, own in replaced:
                exchange_parameters(owner, own)
            if isinstance(module, nn.RNNBase):
                refresh_flat_weights(module)

    def _computed(
        self, made_in: int | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if isinstance(self._rule, OwnForward):
            return self._rule.run(Taps(self._use, made_in), self._layer.module, args, kwargs)
        return self._forward(*args, **kwargs)

    def _use(
        self,
        compute: Compute,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        batch_dim: int,
        remembered: Any,
        made_in: int | None,
    ) -> Use:
        number = self._tracker.forward_pass
        tracker, layer = self._tracker, self._layer
        return Use(tracker, layer, compute, args, kwargs, batch_dim, remembered, made_in, number)


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
        use = self._use(compute, (input,), {}, batch_dim, None, self._made_in)
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
