"""The calls of modules in a forward pass, recorded to place cuts by them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn, Tensor
from torch.autograd.graph import Node

from .._torch import version
from .._tree import first_activation
from ._cost import Cost
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
        cost: Floating-point operations of the pass so far.
        products: How many products, convolutions and attentions had run by then.
    """

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor
    version: int
    node: Node | None
    cost: int
    products: int


class CallRecorder:
    """Records the calls of a network's layers and leaf modules, and of chosen modules.

    Args:
        network: The network.
        selection: The modules that the user chose.

    Attributes:
        calls: The calls so far.
        cost: Counts operations where it is active.
    """

    def __init__(self, network: nn.Module, selection: Selection) -> None:
        self._network = network
        self._selection = selection
        self.calls: list[Call] = []
        self.cost = Cost()

    def __getstate__(self) -> dict[str, Any]:
        # Calls hold graphs, which can be neither copied nor pickled.
        return {**self.__dict__, "calls": []}

    def watched(self) -> dict[str, nn.Module]:
        """Return the modules whose calls are recorded, by qualified name."""
        chosen = {*self._selection.named, *self._selection.found}
        outer = outer_modules(self._network)
        return {
            name: module
            for name, module in self._network.named_modules()
            if name in chosen or (name in outer and is_unit(module))
        }

    def record(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Record one call; a call that returns no activation is left out."""
        activation = first_activation(output)
        if activation is None:
            return
        input, changes = first_activation(args), version(activation)
        counted = (self.cost.total, self.cost.products)
        call = Call(name, module, input, activation, changes, activation.grad_fn, *counted)
        self.calls.append(call)

    def clear(self) -> None:
        """Drop all calls, and count operations from zero."""
        self.calls.clear()
        self.cost.reset()
