"""The first run: which chosen modules run, in what order, and where exactly each cut goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast, NamedTuple

from torch import nn, Tensor
from torch.autograd.graph import Node

from ._balance import balanced, Cost
from ._graph import separating
from ._select import has_weight, Selection
from ._tree import first_activation
from .errors import SelectionError


class Site(NamedTuple):
    """A place to cut: the output of one module.

    Attributes:
        name: Qualified name of the module.
        source: Qualified name of the layer whose features come out there; says how they lie.
    """

    name: str
    source: str


class Call(NamedTuple):
    """One call of a module in the first run.

    Attributes:
        name: Of the module.
        module: The module.
        input: Its first activation, if there was one.
        output: The activation that it returned.
        version: Of that, by which changes in place are told.
        node: What made it, where gradients were recorded.
        cost: Of the run so far.
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


class Probe:
    """Records the calls of a first run and places the cuts from them."""

    def __init__(self, network: nn.Module, selection: Selection, skip_last_layer: bool) -> None:
        self._network = network
        self._selection = selection
        self._skip_last_layer = skip_last_layer
        self.calls: list[Call] = []
        self.cost = Cost()

    def watched(self) -> dict[str, nn.Module]:
        """The modules whose calls are recorded: all leaves, and what was chosen."""
        chosen = {*self._selection.named, *self._selection.found}
        return {
            name: module
            for name, module in self._network.named_modules()
            if name and (name in chosen or next(module.children(), None) is None)
        }

    def record(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Take down one call."""
        activation = first_activation(output)
        if activation is not None:
            input, version = first_activation(args), activation._version
            now = (self.cost.total, self.cost.products)
            call = Call(name, module, input, activation, version, activation.grad_fn, *now)
            self.calls.append(call)

    @property
    def balances(self) -> bool:
        """Whether parts of about equal cost are asked for: that takes a graph, and the costs."""
        return self._selection.parts is not None

    def sites(self, outputs: Sequence[Tensor] = ()) -> list[Site]:
        """Where the cuts go, in the order of the run; chosen modules that did not run come last.

        Args:
            outputs: Of the network.

        Raises:
            SelectionError: There are not as many places as asked for.
        """
        if self._selection.parts is not None:
            return self._balanced(self._selection.parts, outputs)
        ran = dict.fromkeys(call.name for call in self.calls)
        last = next((c.name for c in reversed(self.calls) if has_weight(c.module)), None)
        found = [name for name in self._selection.found if not self._ends(name, last)]
        if self._selection.automatic:
            return [self._behind(name) for name in ran if name in found]
        chosen = {*self._selection.named, *found}
        ordered = self._distinct(chosen)
        ordered += [name for name in self.watched() if name in chosen and name not in ran]
        return [Site(name, name) for name in ordered]

    def _balanced(self, parts: int, outputs: Sequence[Tensor]) -> list[Site]:
        """The places that everything goes through, those that make parts alike in cost.

        Of several between two products the last: behind normalisation and activation, and of
        modules that return the same the outermost, such as the block of a residual network.
        """
        once = Counter(call.name for call in self.calls)
        calls = [c for c in self.calls if c.node is not None and once[c.name] == 1]
        nodes = [cast(Node, call.node) for call in calls]
        order = sorted(range(len(calls)), key=lambda i: nodes[i]._sequence_nr())
        ends = [output.grad_fn for output in outputs if output.grad_fn is not None]
        apart = separating(ends, [nodes[i] for i in order])
        places = {
            calls[i].products: calls[i]
            for i, separates in zip(order, apart, strict=True)
            if separates and calls[i].products < self.cost.products
        }
        if len(places) < parts - 1:
            raise SelectionError(
                f"layers={parts}: the network can be cut into {len(places) + 1} parts at most, at "
                f"{[call.name for call in places.values()]}: elsewhere something leads around, or "
                "no layer is left behind"
            )
        found = [*places.values()]
        chosen = balanced([call.cost for call in found], self.cost.total, parts)
        return [Site(found[i].name, self._source(found[i])) for i in chosen]

    def _source(self, place: Call) -> str:
        """The last layer with a weight that ran before a place, and lies as its output does."""
        for call in reversed(self.calls[: self.calls.index(place) + 1]):
            if has_weight(call.module) and call.output.dim() == place.output.dim():
                return call.name
        return place.name

    def _distinct(self, chosen: set[str]) -> list[str]:
        """Chosen modules in the order of the run, but one for each activation.

        A container returns its last module's output: two cuts at one tensor would be one.
        """
        names: dict[str, None] = {}
        seen: set[tuple[int, int]] = set()
        for call in self.calls:
            activation = (id(call.output), call.version)
            if call.name in chosen and (call.name in names or activation not in seen):
                names[call.name] = None
                seen.add(activation)
        return list(names)

    def _ends(self, name: str, last: str | None) -> bool:
        """Whether a module is the last layer that runs, or holds it."""
        if not self._skip_last_layer or last is None:
            return False
        return name == last or last.startswith(f"{name}.")

    def _behind(self, source: str) -> Site:
        """The site behind the activation that follows a layer, if one does.

        A linear layer's output is a poor place: what comes of its gradient depends on the mask of
        the activation behind, which a small synthesizer cannot know (three-layer MNIST with
        labels as context: 96.2 % there against 97.7 % behind the ReLU). So the cut goes behind the
        modules without weights that take the layer's output on directly, as long as they keep its
        number of dimensions and run once.
        """
        runs = Counter(call.name for call in self.calls)
        place = next(i for i, call in enumerate(self.calls) if call.name == source)
        behind, current = source, self.calls[place]
        if runs[source] > 1:
            return Site(source, source)
        for call in self.calls[place + 1 :]:
            follows = call.input is current.output and call.output.dim() == current.output.dim()
            if not follows or runs[call.name] > 1 or has_weight(call.module):
                break
            current = call
            if next(call.module.parameters(), None) is None:
                behind = call.name
        return Site(behind, source)
