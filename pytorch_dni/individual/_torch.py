"""Private names of PyTorch that individual gradients alone need.

``pytorch_dni/_torch.py`` has those that other rooms use. Each function says why the name is needed
and what could replace it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor
from torch.autograd.graph import _engine_run_backward, GradientEdge, Node


def exchange_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors in the place of a module's own parameters, and return those.

    ``torch.func.functional_call`` does the same, but calls the module with its hooks.
    """
    own: dict[str, Any] = module._parameters
    replaced = {name: own[name] for name in tensors}
    own.update(tensors)
    return replaced


def viewed(tensor: Tensor) -> Tensor | None:
    """Return the tensor of which another is a view; None for tensors that are no views.

    Changes in place of a view replace its node of the graph, and not that of the viewed tensor.
    There is no public way to ask.
    """
    return tensor._base


def next_creation_number() -> int:
    """Return the number that :func:`creation_number` gives for the next node of the graph."""
    number: int = torch._C._autograd._get_sequence_nr()
    return number


def has_class_weights(loss: Node) -> bool:
    """Return whether a node is that of a likelihood with class weights; there is no public way.

    PyTorch releases the weights when the node has run, and says so when they are asked for.
    """
    if not type(loss).__name__.startswith("NllLoss"):
        return False
    try:
        weight = getattr(loss, "_saved_weight", None)
    except RuntimeError:
        return True
    return weight is not None


def keeps_graph() -> bool:
    """Return whether the running backward pass retains its graph; there is no public way to ask."""
    keeps: bool = torch._C._autograd._get_current_graph_task_keep_graph()
    return keeps


def backward_roots() -> Sequence[Tensor | GradientEdge]:
    """Return what the running backward pass started from; nothing where it cannot be found.

    It is read from the call of the engine below on the stack. A device's own thread has no such
    call.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is _engine_run_backward.__code__:
            return tuple(frame.f_locals["t_outputs"])
        frame = frame.f_back  # type: ignore[assignment]
    return ()
