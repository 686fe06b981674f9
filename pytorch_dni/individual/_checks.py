"""Checks of a backward pass: the loss's reduction, and parameters that are used elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from torch import nn, Tensor
from torch.autograd.graph import GradientEdge, Node
from torch.utils.hooks import RemovableHandle

from .._torch import creation_number, leaf_of
from ..errors import DNIError
from ._forms import GradientForm
from ._torch import backward_roots, has_class_weights
from ._uses import Layer

_MEAN, _SUM = 1, 2  # PyTorch's numbers of reductions


class PassCheck:
    """Checks the first backward pass of a context.

    Args:
        parameters: The parameters whose per-example gradients are taken, by name.
        mean: Whether the loss is said to be the mean over the batch.
        grad: Whether the summed gradients are computed too.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], mean: bool, grad: bool) -> None:
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._mean, self._grad = mean, grad
        self._made: list[tuple[Layer, int, int]] = []

    def note_nodes(self, layer: Layer, first: int, end: int) -> None:
        """Note the numbers of the graph's nodes that a layer has made."""
        self._made.append((layer, first, end))

    def check_pass(self) -> None:
        """Check the backward pass that runs.

        Raises:
            DNIError: The loss has another reduction, or a parameter is used outside of its layer.
        """
        made, self._made = self._made, []
        roots = backward_roots()
        if len(roots) == 1 and isinstance(roots[0], Tensor):
            self._check_reduction(roots[0].grad_fn)
        if self._grad:
            self._check_uses(roots, made)

    def check_form(
        self, layer: Layer, local: str, form: GradientForm, batch: tuple[int, Layer] | None
    ) -> None:
        """Raise where gradients have another shape than ``(batch, *shape of the parameter)``."""
        owner, name = layer.owners[local]
        shape = tuple(getattr(owner, name).shape)
        if form.shape != shape or batch is None or form.batch != batch[0]:
            raise DNIError(
                f"the rule of {layer.description} gave gradients of shape "
                f"{(form.batch, *form.shape)} for its parameter {local!r}: they must be of shape "
                f"({'batch' if batch is None else batch[0]}, {', '.join(map(str, shape))}), one "
                "for each example"
            )

    def _check_reduction(self, root: Node | None) -> None:
        if root is None:
            return
        kind, saved = type(root).__name__, getattr(root, "_saved_reduction", None)
        if not self._mean and (kind.startswith("MeanBackward") or saved == _MEAN):
            raise DNIError(
                "the loss is a mean over the batch: give reduction='mean' (each example's gradient "
                "is then that of its own loss), or sum the loss"
            )
        if self._mean and saved == _SUM:
            raise DNIError("the loss is a sum over the batch: give reduction='sum'")
        if self._mean and saved == _MEAN and has_class_weights(root):
            warnings.warn(
                "the loss has class weights and divides by the sum of those of the batch, not by "
                "the number of examples: each example's gradient is that of its share of the loss, "
                "times the number of examples. For the gradients of the weighted losses themselves "
                "give reduction='none' to the loss, and take the mean()",
                stacklevel=2,
            )

    def _check_uses(
        self, roots: Sequence[Tensor | GradientEdge], made: list[tuple[Layer, int, int]]
    ) -> None:
        """Raise where a node that no layer has made reads one of the parameters."""
        queue = [root.grad_fn if isinstance(root, Tensor) else root.node for root in roots]
        seen = {*queue}
        while queue:
            node = queue.pop()
            if node is None:
                continue
            for child, _ in node.next_functions:
                if child is None:
                    continue
                leaf = leaf_of(child)
                name = None if leaf is None else self._names.get(id(leaf))
                if name is not None and not _made_by_owner(node, name, made):
                    raise used_outside(name)
                if child not in seen:
                    seen.add(child)
                    queue.append(child)


def _made_by_owner(node: Node, name: str, made: list[tuple[Layer, int, int]]) -> bool:
    number = creation_number(node)
    return any(first <= number < end and name in layer.names.values() for layer, first, end in made)


def used_outside(name: str) -> DNIError:
    """Return the error of a parameter that the loss depends on in another way than by its layer."""
    return DNIError(
        f"the parameter {name!r} is used outside of its layer, by a function or in the loss, which "
        "gives it a gradient that belongs to no layer's examples. Have a module use it (a "
        "torch.nn.Linear whose weight is the same Parameter, for a tied weight), or register a "
        "rule for the module that does (register_rule)"
    )


class OutsideGradientHook:
    """Raises where a parameter gets a gradient although none is to be computed by its layer.

    Args:
        name: Qualified name of the parameter.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, grad: Tensor) -> None:
        raise used_outside(self._name)


def watch(parameters: Mapping[str, nn.Parameter]) -> list[RemovableHandle]:
    """Raise where one of these parameters gets a gradient; return the handles of the hooks."""
    return [
        parameter.register_hook(OutsideGradientHook(name)) for name, parameter in parameters.items()
    ]
