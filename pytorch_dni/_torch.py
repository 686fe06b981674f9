"""Every private or undocumented name of PyTorch that the library uses; no other file uses one.

Each function says why the name is needed and what could replace it. ``tests/test_torch_names.py``
fails with a clear message where a version of PyTorch changes one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, cast, TypeAlias, TypeVar

import torch
from torch import nn, Tensor
from torch._compile import _disable_dynamo
from torch.autograd import forward_ad as _forward_ad
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.autograd.graph import _engine_run_backward, GradientEdge, Node
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.flop_counter import flop_registry

__all__ = ["TorchDispatchMode"]  # has no public name yet; torch.utils.flop_counter builds on it

_AccumulateGrad: Any = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]
_aten = torch.ops.aten
_BackwardPass: TypeAlias = int
_ACTIVATION_FUNCTIONS = {
    *("relu", "leakyrelu", "elu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid", "tanh"),
    *("hardtanh", "hardswish", "hardsigmoid", "prelukernel", "logsigmoid", "threshold", "glu"),
}
_Function = TypeVar("_Function", bound=Callable[..., Any])
_FUSED_RECURRENT = ("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn")

# The operators below have no public name. Autograd calls the same ones; a backward pass through
# torch.autograd replaces them at the cost of building and walking a graph. They are resolved once:
# finding the overload at each call costs as much as a small kernel.
relu_backward = _aten.threshold_backward.default
sigmoid_backward = _aten.sigmoid_backward.default
batch_norm_forward = torch.native_batch_norm
batch_norm_backward = _aten.native_batch_norm_backward.default
layer_norm_forward = torch.native_layer_norm
layer_norm_backward = _aten.native_layer_norm_backward.default
nll_loss_forward = _aten.nll_loss_forward.default
nll_loss_backward = _aten.nll_loss_backward.default
log_softmax_backward = _aten._log_softmax_backward_data.default
# Multiplies a list of tensors by a number in one call; a loop over tensors can replace it.
multiply_ = torch._foreach_mul_


def default_store() -> Any:
    """Return the store of the default process group.

    Ranks leave each other texts in it. A ``TCPStore`` of one's own, which listens on a further
    port, can replace it.
    """
    # PyTorch can be built without this module.
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def current_backward_pass() -> _BackwardPass | None:
    """Return the number of the backward pass that runs in this thread; None outside of one.

    Lessons of one backward pass are collected by it. Autograd offers no public way to ask.
    """
    number: int = torch._C._current_graph_task_id()
    return None if number == -1 else number


def is_transformed() -> bool:
    """Return whether a transform of ``torch.func`` runs; there is no public way to ask."""
    transforms: Any = torch._C._functorch
    return transforms.peek_interpreter_stack() is not None


def is_forward_differentiated() -> bool:
    """Return whether forward-mode differentiation runs; there is no public way to ask."""
    return _forward_ad._current_level >= 0


def call_after_backward_pass(callback: Callable[[], None]) -> None:
    """Call a function when the running backward pass ends.

    ``DistributedDataParallel`` relies on the same call. A hook on the root of the graph could
    replace it, but runs at the beginning of the pass.
    """
    torch.autograd.Variable._execution_engine.queue_callback(callback)


def run_backward(
    output: Tensor, grad: Tensor, inputs: Sequence[Tensor | GradientEdge]
) -> list[Tensor | None]:
    """Return the gradients of ``inputs``, of which any may be None.

    The same as ``torch.autograd.grad(output, inputs, grad, allow_unused=True)`` without its checks
    of arguments, which take as long as a small layer. The function called is the one behind
    ``torch.autograd.grad``: anomaly mode, the multithreading flag, logging hooks and hooks of the
    graph all work inside it.
    """
    return [
        *_engine_run_backward(
            (output,), (grad,), False, False, (*inputs,), True, accumulate_grad=False
        )
    ]


@contextmanager
def hooks_suspended(leaves: Sequence[Tensor | GradientEdge]) -> Iterator[None]:
    """Keep the tensor hooks of leaves from running in this scope.

    Gradients that are computed early are not final: the user's hooks run when they are delivered.
    Public handles can be removed, but not put back in their order.
    """
    suspended = []
    for leaf in leaves:
        hooks = leaf._backward_hooks if isinstance(leaf, Tensor) else None
        if hooks:
            suspended.append((hooks, dict(hooks)))
            hooks.clear()
    try:
        yield
    finally:
        for hooks, kept in suspended:
            hooks.update(kept)


def uncompiled(function: _Function) -> _Function:
    """Return a function that ``torch.compile`` leaves as it is, with all that it calls.

    ``torch.compiler.disable`` is the public name; it imports the compiler at once, which takes
    seconds. This one imports it when the function is first called.
    """
    return cast(_Function, _disable_dynamo(function))


def compiles() -> bool:
    """Return whether ``torch.compile`` is in use: there may be code that it has compiled.

    There is no public way to ask. The package of the compiler is imported by optimizers, too.
    """
    frames = sys.modules.get("torch._dynamo.eval_frame")
    if frames is None:
        return False
    backends: Mapping[int, Any] = frames.cached_backends
    return any(backends.values()) or bool(_compiled_codes())


def _compiled_codes() -> Sequence[Any]:
    conversion = sys.modules.get("torch._dynamo.convert_frame")
    return () if conversion is None else conversion.input_codes.seen


def version(tensor: Tensor) -> int:
    """Return how often a tensor has been changed in place.

    ``torch.autograd`` uses the same counter to check saved tensors; it has no public name.
    """
    count: int = tensor._version
    return count


def overwrite(tensor: Tensor, values: Tensor) -> None:
    """Give a tensor other values without counting it as a change in place.

    For values that are restored: a graph that saved the tensor before is still valid.
    """
    with torch.no_grad(), _unsafe_preserve_version_counter(tensor):
        tensor.copy_(values)


def creation_number(node: Node) -> int:
    """Return a number that is higher for nodes that were created later.

    The engine orders the backward pass by it; the graph has no other record of that order.
    """
    return node._sequence_nr()


def leaf_of(node: Node) -> Tensor | None:
    """Return the leaf tensor whose gradient a node accumulates; None for other nodes."""
    return cast(Any, node).variable if type(node) is _AccumulateGrad else None


def is_cast_by_autocast(node: Node) -> bool:
    """Return whether a node is a cast; autocast shares casts of parameters among parts.

    The class of such nodes has no public name.
    """
    return type(node).__name__.startswith("ToCopy")


def activation_function(node: Node) -> str | None:
    """Return which activation function made a node, in small letters; None for other nodes.

    The classes of such nodes have no public names.
    """
    name = type(node).__name__.partition("Backward")[0].lower()
    return name if name in _ACTIVATION_FUNCTIONS else None


def is_reentrant_checkpoint(node: Node) -> bool:
    """Return whether a node is that of a checkpoint with ``use_reentrant=True``.

    Its graph is made in the backward pass: nothing in it can be found before. The class of such
    nodes has no public name.
    """
    return type(node) is CheckpointFunction._backward_cls


@cache
def saves_tensors(kind: type[Node]) -> bool:
    """Return whether nodes of a class may save tensors, which a backward pass releases.

    The graph tells it by the names of attributes alone.
    """
    return any(name.startswith("_raw_saved_") for name in dir(kind))


def is_output_of(tensor: Tensor, function: type[torch.autograd.Function]) -> bool:
    """Return whether a tensor is a direct output of an autograd function.

    The class of the function's nodes has no public name.
    """
    return isinstance(tensor.grad_fn, function._backward_cls)


def storage_number(tensor: Tensor) -> int:
    """Return a number that tensors in the same memory share; ``data_ptr`` may be 0 for several."""
    number: int = tensor.untyped_storage()._cdata
    return number


def forward_hooks(module: nn.Module) -> Mapping[int, Callable[..., Any]]:
    """Return the forward hooks of a module; PyTorch can add and remove, but not list them."""
    return module._forward_hooks


def forward_pre_hooks(module: nn.Module) -> Mapping[int, Callable[..., Any]]:
    """Return the hooks that run before a module; PyTorch can add and remove, but not list them."""
    return module._forward_pre_hooks


def has_backward_hooks(module: nn.Module) -> bool:
    """Return whether a module has backward hooks; PyTorch can add and remove, but not list them."""
    return bool(module._backward_hooks or module._backward_pre_hooks)


def apply_to_tensors(module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
    """Apply a function to all parameters and buffers, as ``to``, ``half`` and ``cuda`` do.

    Modules that are no submodules have to follow the network; the public calls each do one kind.
    """
    module._apply(function)


def skip_step_if(optimizer: Optimizer, overflow: Tensor) -> None:
    """Have a fused optimizer skip its next step where the flag on its device is not zero.

    ``GradScaler`` uses the same attribute; reading the flag here would stall the device's queue.
    """
    optimizer.found_inf = overflow  # type: ignore[attr-defined]


def do_not_skip_step(optimizer: Optimizer) -> None:
    """Remove what :func:`skip_step_if` left."""
    vars(optimizer).pop("found_inf", None)


def operation_cost(
    operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> int | None:
    """Return the floating-point operations of a product, a convolution or an attention.

    PyTorch has no formula for the fused kernels of recurrent layers, which hold products too: each
    weight is used once at each position of the sequence.

    Returns:
        The number by PyTorch's own formula; None for operations that have none.
    """
    packet = operation._overloadpacket
    formula = flop_registry.get(packet)
    if formula is not None:
        return int(formula(*args, **kwargs, out_val=output))
    if packet.__name__ not in _FUSED_RECURRENT:
        return None
    given = [a for arg in args for a in (arg if isinstance(arg, (list, tuple)) else [arg])]
    tensors = [tensor for tensor in given if isinstance(tensor, Tensor)]
    positions = tensors[0].numel() // max(tensors[0].shape[-1], 1)
    return 2 * positions * sum(tensor.numel() for tensor in tensors[1:] if tensor.dim() == 2)
