"""The graph of a part that has been backpropagated already, which no loss may enter any more."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import Node

from .._torch import saves_tensors
from ..errors import DNIError


def loss_inside(name: str) -> DNIError:
    """Return the error of a loss that is computed from a tensor inside of a network.

    Args:
        name: Name of the cut at the end of the tensor's part.
    """
    return DNIError(
        f"eager: the backward pass entered the network at a tensor from inside (an auxiliary "
        f"loss, a feature of a hook), at the cut {name!r} or in the part that ends there, whose "
        "gradients were computed in the forward pass. Leave this cut and those after it out of "
        "layers, compute the loss from the network's output, or leave eager out"
    )


def close_graph(name: str, nodes: Iterable[Node]) -> None:
    """Have a later backward pass through nodes of a part raise an error that names its cut.

    Autograd has released what they saved; nodes that save nothing pass gradients on as ever.
    """
    closed = _Closed(name)
    for node in nodes:
        if saves_tensors(type(node)):
            node.register_prehook(closed)


class _Closed:
    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, grads: tuple[Tensor | None, ...]) -> None:
        raise loss_inside(self._name)
