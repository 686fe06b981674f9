"""A check that the backward pass of detached parts comes from the network's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor
from torch.autograd.graph import Node

from .._torch import is_reentrant_checkpoint
from ..errors import DNIError
from ..interfaces._autograd import detach_at_cut, in_same_memory
from ..placement._graph import walk


def not_from_output(way: str, name: str, kind: str) -> DNIError:
    """Return the error of a backward pass that does not come from the network's output.

    Args:
        way: The argument of ``DNI`` that needs it.
        name: Name of the cut that the backward pass has reached.
        kind: Name of the output's class.
    """
    return DNIError(
        f"{way}: a backward pass reached the cut {name!r}, but no tensor of the network's output "
        f"({kind}), at which earlier parts get their gradients. If the output hides its tensors in "
        "an object, return tensors, or tuples, lists, dicts or dataclasses of them; if the loss is "
        "computed from a tensor inside the network, add it to a loss of the output, in one "
        f"backward pass; or leave {way} out"
    )


class DeliveryWatch:
    """Checks one forward pass whose parts are not connected in the graph.

    A part that begins at a detached activation shows nobody that it is backpropagated. Here it
    begins at a tensor that asks for a gradient, which is computed only for this check: so only
    until it has been passed once.

    Args:
        note: Called when the gradient of the output has come.
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note
        self._kind = ""
        self._ends: list[Node] = []
        self._mark = object()
        self._delivered = False

    def begin_part(self, name: str, activation: Tensor) -> Tensor:
        """Return an activation detached, from which the part after a cut begins.

        Raises:
            DNIError: The part before the cut holds a checkpoint that needs an input's gradient.
        """
        self._check_checkpoints(f"the part that ends at the cut {name!r}", [activation])
        anchor = activation.new_zeros(()).requires_grad_()
        passed = detach_at_cut(activation.detach(), _Entrance(name, self), anchor)
        self._ends.append(cast(Node, passed.grad_fn))
        return passed

    def end(self, kind: str, outputs: Sequence[Tensor]) -> None:
        """Note the class of what the network returns, and check the tensors in it.

        Raises:
            DNIError: The last part holds a checkpoint that needs an input's gradient.
        """
        self._kind = kind
        self._check_checkpoints("the last part", outputs)

    def note(self) -> None:
        """Note that the gradient of the output has come."""
        self._delivered = True
        self._note()

    def check(self, name: str) -> None:
        """Raise :class:`DNIError` where the part after a cut got a gradient, but no output did."""
        if not self._delivered:
            raise not_from_output("exact_every", name, self._kind)

    def _check_checkpoints(self, part: str, tensors: Sequence[Tensor]) -> None:
        starts = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
        nodes = walk(starts, self._ends, self._mark).nodes
        if self._ends and any(map(is_reentrant_checkpoint, nodes)):
            raise DNIError(
                f"exact_every: {part} holds a checkpoint with use_reentrant=True, which computes "
                "no gradients where its input asks for none, as in the steps that are not exact: "
                "give torch.utils.checkpoint use_reentrant=False, or leave exact_every out"
            )


class _Entrance:
    """Begins a part at a detached activation, in the same memory.

    Args:
        name: Name of the cut.
        watch: Checks the backward pass.
    """

    def __init__(self, name: str, watch: DeliveryWatch) -> None:
        self._name = name
        self._watch = watch

    def forward_message(self, activation: Tensor) -> Tensor:
        """Return the activation in the same memory."""
        return in_same_memory(activation)

    def backward_message(self, grad: Tensor | None) -> None:
        """Check where a gradient has come from."""
        if grad is not None:
            self._watch.check(self._name)
