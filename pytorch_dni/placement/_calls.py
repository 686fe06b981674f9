"""The calls of modules in a forward pass, recorded to place cuts by them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn, Tensor
from torch.autograd.graph import Node

from .._torch import version
from .._tree import first_activation, tensors
from ._cost import Cost
from ._graph import is_made_from
from ._layers import is_unit, outer_modules
from ._selection import Selection


class Call(NamedTuple):
    """One call of a module.

    Attributes:
        name: Qualified name of the module.
        module: The module.
        input: Its first activation, if there was one.
        output: The activation that it returned.
        version: How often the output had been changed in place by then.
        node: The node that made the output, where gradients were recorded.
        used_inside: Whether the module returned another tensor made from this output.
        cost: Floating-point operations of the pass so far.
        products: How many products, convolutions and attentions had run by then.
    """

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor
    version: int
    node: Node | None
    used_inside: bool
    cost: int
    products: int


class CallRecorder:
    """Records the calls of a network's layers and leaf modules, and of chosen modules.

    Where ``layers=None`` chooses, each module with layers inside may be the end of a block.

    Args:
        network: The network.
        selection: The modules that the user chose.

    Attributes:
        calls: The calls so far.
        opaque: By name, what modules returned in which no activation was found: its type.
        cost: Counts operations where it is active.
    """

    def __init__(self, network: nn.Module, selection: Selection) -> None:
        self._network = network
        self._selection = selection
        self.calls: list[Call] = []
        self.opaque: dict[str, str] = {}
        self.cost = Cost()

    def __getstate__(self) -> dict[str, Any]:
        # Calls hold graphs, which can be neither copied nor pickled.
        return {**self.__dict__, "calls": []}

    def watched(self) -> dict[str, nn.Module]:
        """Return the modules whose calls are recorded, by qualified name."""
        chosen = {*self._selection.named, *self._selection.found}
        outer = outer_modules(self._network)
        chosen.update(outer if self._selection.automatic else ())
        return {
            name: module
            for name, module in self._network.named_modules()
            if name in chosen or (name in outer and is_unit(module))
        }

    def record(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Record one call; a call that returns no activation is left out."""
        activation = first_activation(output)
        if activation is None:
            self.opaque[name] = type(output).__name__
            return
        input, changes, node = first_activation(args), version(activation), activation.grad_fn
        used = False
        if output is not activation and node is not None:
            others = (tensor.grad_fn for tensor in tensors(output))
            used = is_made_from([other for other in others if other is not None], node)
        counted = (self.cost.total, self.cost.products)
        self.calls.append(Call(name, module, input, activation, changes, node, used, *counted))

    @property
    def has_calls(self) -> bool:
        """Whether any module has run that can be cut by itself, and not as the end of a block."""
        chosen = not self._selection.automatic
        return any(chosen or is_unit(call.module) for call in self.calls)

    def clear(self) -> None:
        """Drop all calls, and count operations from zero."""
        self.calls.clear()
        self.opaque.clear()
        self.cost.reset()
