"""Sites: the exact places of cuts, from the calls of a forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import cast, NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

from .._torch import activation_function, creation_number
from ..errors import SelectionError
from ._calls import Call
from ._cost import balanced
from ._graph import activations_after, separating
from ._layers import has_weight
from ._selection import Selection


class Site(NamedTuple):
    """A place to cut: the output of one module.

    Attributes:
        name: Qualified name of the module.
        source: Qualified name of the layer that computes the features; it tells their dimension.
    """

    name: str
    source: str


def find_sites(
    selection: Selection,
    skip_last_layer: bool,
    watched: Iterable[str],
    calls: Sequence[Call],
    outputs: Sequence[Tensor],
    total_cost: tuple[int, int],
) -> list[Site]:
    """Return the sites in the order of the run; chosen modules that did not run come last.

    Args:
        selection: What the user chose.
        skip_last_layer: Whether the layer that runs last is left out.
        watched: Names of the modules whose calls were recorded.
        calls: The calls.
        outputs: Outputs of the network.
        total_cost: Operations and products of the whole pass.

    Raises:
        SelectionError: There are fewer places than asked for.
    """
    if selection.parts is not None:
        return _balanced_sites(selection.parts, calls, outputs, total_cost)
    ran = dict.fromkeys(call.name for call in calls)
    last = next((c.name for c in reversed(calls) if has_weight(c.module)), None)
    left_out = last if skip_last_layer else None
    found = [name for name in selection.found if not _is_or_holds(name, left_out)]
    if selection.automatic:
        # Lazy layers have shown by now whether they have a weight.
        weighted = {call.name for call in calls if has_weight(call.module)}
        found = [name for name in ran if name in found and name in weighted]
        return [_site_after_activation(name, calls) for name in found]
    chosen = {*selection.named, *found}
    ordered = _distinct(chosen, calls)
    ordered += [name for name in watched if name in chosen and name not in ran]
    return [Site(name, name) for name in ordered]


def _is_or_holds(name: str, layer: str | None) -> bool:
    return layer is not None and (name == layer or layer.startswith(f"{name}."))


def _balanced_sites(
    parts: int, calls: Sequence[Call], outputs: Sequence[Tensor], total_cost: tuple[int, int]
) -> list[Site]:
    """Choose places that everything goes through, so that parts cost about the same.

    Of several places between two products the last is taken: after normalisation and activation,
    and of modules that return the same the outermost, such as the block of a residual network.
    """
    cost, products = total_cost
    once = Counter(call.name for call in calls)
    # A cut behind a module does not reach what was made from its output inside.
    single = [c for c in calls if c.node is not None and once[c.name] == 1 and not c.used_inside]
    nodes = [cast(Node, call.node) for call in single]
    order = sorted(range(len(single)), key=lambda i: creation_number(nodes[i]))
    ends = [output.grad_fn for output in outputs if output.grad_fn is not None]
    separates = separating(ends, [nodes[i] for i in order])
    places = {
        single[i].products: single[i]
        for i, alone in zip(order, separates, strict=True)
        if alone and single[i].products < products
    }
    if len(places) < parts - 1:
        raise SelectionError(
            f"layers={parts}: the network can be cut into {len(places) + 1} parts at most, at "
            f"{[call.name for call in places.values()]}: at all other places there is a connection "
            "around them, or no layer is left after them"
        )
    found = [*places.values()]
    chosen = balanced([call.cost for call in found], cost, parts)
    return [Site(found[i].name, _source(found[i], calls)) for i in chosen]


def _source(place: Call, calls: Sequence[Call]) -> str:
    """Return the last layer with a weight up to a place whose output has as many dimensions."""
    for call in reversed(calls[: calls.index(place) + 1]):
        if has_weight(call.module) and call.output.dim() == place.output.dim():
            return call.name
    return place.name


def _distinct(chosen: set[str], calls: Sequence[Call]) -> list[str]:
    """Return chosen modules in the order of the run, one for each activation.

    A container returns its last module's output: two cuts at one tensor would be one. A module that
    returned its input, as a block of a network of random depth, may return another one later.
    """
    names: dict[str, None] = {}
    seen: set[tuple[int, int]] = set()
    for call in calls:
        activation = (id(call.output), call.version)
        new = call.name in names or activation not in seen or call.input is call.output
        if call.name in chosen and new:
            names[call.name] = None
            seen.add(activation)
    return list(names)


def _site_after_activation(source: str, calls: Sequence[Call]) -> Site:
    """Return the site after the activation function of a layer, if a module computes one.

    The output of a linear layer is a poor place: the gradient that is passed back depends on the
    mask of the activation function after it, which a small synthesizer cannot know (three-layer
    MNIST with labels as context: 96.2 % there against 97.7 % after the ReLU). So the cut is made
    after the modules without weights that take the layer's output directly, as long as they keep
    its number of dimensions and run once.
    """
    last = source
    for call in _following(source, calls):
        if next(call.module.parameters(), None) is None:
            last = call.name
    return Site(last, source)


def _following(source: str, calls: Sequence[Call]) -> Iterator[Call]:
    """Yield the calls of modules without weights that follow a layer, each on the one before."""
    runs = Counter(call.name for call in calls)
    place = next(i for i, call in enumerate(calls) if call.name == source)
    current = calls[place]
    if runs[source] > 1:
        return
    for call in calls[place + 1 :]:
        follows = call.input is current.output and call.output.dim() == current.output.dim()
        if not follows or runs[call.name] > 1 or has_weight(call.module):
            return
        current = call
        yield call


def cuts_before_activation(
    sites: Iterable[Site], calls: Sequence[Call], ends: Iterable[Node]
) -> dict[str, str]:
    """Return, by the name of the site, the activation function that a cut stands before.

    It is one that no module computes (``F.relu`` in a ``forward``), or one that runs several times.

    Args:
        sites: Sites after the activation functions of layers.
        calls: The calls.
        ends: Nodes of the network's outputs.
    """
    ran = {call.name: call for call in calls}
    nodes: dict[str, Node] = {}
    for site in sites:
        *_, last = ran[site.source], *_following(site.source, calls)
        if last.node is not None and activation_function(last.node) is None:
            nodes[site.name] = last.node
    kinds = activations_after(ends, nodes.values())
    return {name: kinds[node] for name, node in nodes.items() if node in kinds}
