"""Sites: the exact places of cuts, from the calls of a forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor
from torch.autograd.graph import Node

from .._torch import creation_number
from ..errors import SelectionError
from ._calls import Call
from ._cost import balanced
from ._default_sites import default_sites
from ._graph import connections_around
from ._layers import has_weight
from ._selection import Selection
from ._site import Site, site_at


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
        return default_sites(found, skip_last_layer, calls, outputs)
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
    around = connections_around(ends, [nodes[i] for i in order])
    places = {
        single[i].products: single[i]
        for i, connections in zip(order, around, strict=True)
        if connections == 0 and single[i].products < products
    }
    if len(places) < parts - 1:
        raise SelectionError(
            f"layers={parts}: the network can be cut into {len(places) + 1} parts at most, at "
            f"{[call.name for call in places.values()]}: at all other places there is a connection "
            "around them, or no layer is left after them"
        )
    found = [*places.values()]
    chosen = balanced([call.cost for call in found], cost, parts)
    positions = {call.name: position for position, call in enumerate(calls)}
    return [site_at(positions[found[i].name], calls) for i in chosen]


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
