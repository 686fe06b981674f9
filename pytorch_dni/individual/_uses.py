"""Uses of layers in forward passes, and the hooks that receive their output gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn, Tensor

from .._torch import version
from .._tree import floating_tensors, map_tensors, tensors
from ..errors import describe, DNIError
from ._rules import Gradients, LayerCall
from ._torch import viewed

#: Computes the gradients of a layer's parameters, by their names in the layer.
Compute = Callable[[LayerCall], Mapping[str, Gradients]]


class Layer(NamedTuple):
    """A layer some of whose parameters require a gradient.

    Attributes:
        name: Its qualified name.
        module: The layer.
        names: Qualified names of these parameters, by their names in the layer.
        wanted: Their names in the layer.
        owners: The modules that hold them, and their names there.
        group: Name of a group of layers; layers that share a parameter are in the same one.
    """

    name: str
    module: nn.Module
    names: Mapping[str, str]
    wanted: frozenset[str]
    owners: Mapping[str, tuple[nn.Module, str]]
    group: str

    @property
    def description(self) -> str:
        """What error messages call the layer."""
        return describe(self.name, self.module)


class Receiver(Protocol):
    """Receives the output gradients of uses."""

    def receive(self, use: Use, grads: tuple[Tensor, ...]) -> None:
        """Take the output gradients of a use, in a backward pass."""

    def count(self, group: str, change: int) -> None:
        """Count the uses of a group of layers whose graph is alive."""


class Use:
    """One use of a layer in a forward pass. It lives as long as the graph of that pass.

    Args:
        receiver: Receives the output gradients.
        layer: The layer.
        compute: Computes the gradients of its parameters.
        given: The layer's arguments and keywords.
        batch_dim: The dimension of examples.
        remembered: What the rule keeps besides.
        made_in: Number of the backward pass that the forward pass runs in; None outside of one.
        forward_pass: Number of the network's forward pass.
    """

    def __init__(
        self,
        receiver: Receiver,
        layer: Layer,
        compute: Compute,
        given: tuple[tuple[Any, ...], Mapping[str, Any]],
        batch_dim: int,
        remembered: Any,
        made_in: int | None,
        forward_pass: int,
    ) -> None:
        self.layer, self.made_in, self.forward_pass = layer, made_in, forward_pass
        self.batch_dim = batch_dim
        self._receiver, self._compute = receiver, compute
        self._remembered, self._number = remembered, 0
        self._shape: torch.Size | None = None
        self._kept: tuple[tuple[Any, ...], Mapping[str, Any]] | None
        args, kwargs = given
        if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
            input = args[0].detach()
            self._kept, self._inputs = ((input,), kwargs), [input]
        else:
            self._kept = map_tensors((args, dict(kwargs)), Tensor.detach)
            self._inputs = tensors(self._kept)
        self._versions = [_version(input) for input in self._inputs]
        receiver.count(layer.group, 1)

    def wait_at(self, output: Tensor) -> Tensor:
        """Receive the gradient of an output, as it reaches the layer; return the output.

        A hook on the node of the graph runs after all hooks of the tensor, which may change the
        gradient. In-place changes of the output do not move it, but for a view, whose node they
        replace: the hook is then on the tensor that is viewed.
        """
        base = viewed(output)
        if base is not None and (base.grad_fn is None or not _is_reshaped(base, output)):
            output, base = output.clone(), None
        self._shape = None if base is None else output.shape
        source = output if base is None else base
        assert source.grad_fn is not None  # a layer has computed it
        self._number = source.output_nr
        source.grad_fn.register_prehook(self)
        return output

    def __call__(self, grads: tuple[Tensor | None, ...]) -> None:
        """Receive the gradients of the outputs of a node."""
        grad = grads[self._number]
        if grad is not None and self._kept is not None:
            grad = grad if self._shape is None else grad.reshape(self._shape)
            self._receiver.receive(self, (grad,))

    def receive(self, grads: tuple[Tensor, ...]) -> None:
        """Take the output gradients, in a backward pass."""
        if self._kept is not None:
            self._receiver.receive(self, grads)

    def gradients(self, grads: tuple[Tensor, ...]) -> Mapping[str, Gradients]:
        """Return the gradients of the parameters, by their names in the layer.

        Raises:
            DNIError: An input was changed in place after the layer had used it.
        """
        assert self._kept is not None
        layer = self.layer
        if [_version(input) for input in self._inputs] != self._versions:
            raise DNIError(
                f"an input of {layer.description} was changed in place after the layer had "
                "used it, so that per-example gradients cannot be computed: change a copy instead"
            )
        args, kwargs = self._kept
        return self._compute(
            LayerCall(
                layer.name,
                layer.module,
                args,
                kwargs,
                grads,
                layer.wanted,
                self.batch_dim,
                self._remembered,
            )
        )

    def release(self) -> None:
        """Forget the inputs: the graph has been gone through."""
        if self._kept is not None:
            self._kept, self._inputs, self._remembered = None, [], None
            self._receiver.count(self.layer.group, -1)

    def __del__(self) -> None:
        self.release()


def _is_reshaped(base: Tensor, view: Tensor) -> bool:
    return base.numel() == view.numel() and base.is_contiguous() and view.is_contiguous()


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else version(tensor)


class _Root(torch.autograd.Function):
    """Makes outputs require a gradient although nothing that they were computed from does."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *outputs: Tensor) -> Any:
        ctx.mark_dirty(*outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return (None,) * (1 + len(grads))


class _Together(torch.autograd.Function):
    """Passes several outputs on, and gives a use all their gradients at once."""

    @staticmethod
    def forward(ctx: Any, use: Use, *outputs: Tensor) -> Any:
        ctx.use = use
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        ctx.use.receive(grads)
        return (None, *grads)


def rooted(output: Any) -> Any:
    """Return an output whose floating-point tensors require a gradient, though no input does."""
    found = floating_tensors(output)
    if not found:
        return output
    anchor = torch.zeros((), requires_grad=True, device=found[0].device)
    new = _Root.apply(anchor, *(tensor.detach() for tensor in found))  # type: ignore[no-untyped-call]
    return _replaced(output, found, new)


def _replaced(output: Any, found: list[Tensor], new: tuple[Tensor, ...]) -> Any:
    by_id = dict(zip(map(id, found), new, strict=True))
    return map_tensors(output, lambda tensor: by_id.get(id(tensor), tensor))


def attach(use: Use, output: Any) -> Any:
    """Return a layer's output, whose gradients the use will receive.

    Raises:
        DNIError: No tensor that requires a gradient is found in the output.
    """
    if isinstance(output, Tensor) and output.grad_fn is not None:
        return use.wait_at(output)
    found = [tensor for tensor in floating_tensors(output) if tensor.requires_grad]
    if not found:
        raise DNIError(
            f"{use.layer.description} returned {type(output).__name__}, in which no tensor that "
            "requires a gradient is found: have it return tensors, or tuples, lists, mappings or "
            "dataclasses of them"
        )
    new = _Together.apply(use, *found)  # type: ignore[no-untyped-call]
    return _replaced(output, found, new)
