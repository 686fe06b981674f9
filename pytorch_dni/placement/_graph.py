"""Walking autograd's graph: what a tensor was made from, and where a network can be separated."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from typing import cast, NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

from .._torch import (
    activation_function,
    creation_number,
    is_cast_by_autocast,
    is_reentrant_checkpoint,
    leaf_of,
)
from ..errors import DNIError

_MARK = "pytorch_dni"


class Reached(NamedTuple):
    """What a walk through the graph has reached.

    Attributes:
        leaves: Parameters and other leaf tensors.
        ends: Which of the given ends were reached.
        passed: Whether it reached a node that an earlier walk with the same mark had visited.
        nodes: The nodes that belong to this walk alone.
    """

    leaves: list[Tensor]
    ends: set[Node]
    passed: bool
    nodes: list[Node]


def walk(starts: Iterable[Node], ends: Iterable[Node], mark: object) -> Reached:
    """Walk from nodes back to leaves and to given ends, which are not passed.

    Args:
        starts: The nodes at which the walk begins.
        ends: The nodes at which it stops.
        mark: An object left at each visited node, by which a later walk finds that it was visited.
            Leaves, casts and the ends are not marked.
    """
    ends = {*ends}
    leaves: list[Tensor] = []
    met: set[Node] = set()
    visited: list[Node] = []
    passed = False
    stack = [*starts]
    seen = {*stack}
    while stack:
        node = stack.pop()
        if node in ends:
            met.add(node)
            continue
        # Autocast shares casts of parameters among parts; other casts lead to marked nodes.
        if not is_cast_by_autocast(node):
            metadata = cast("dict[str, object]", node.metadata)
            if metadata.get(_MARK) is mark:
                passed = True
                continue
            metadata[_MARK] = mark
            visited.append(node)
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                leaf = leaf_of(after)
                if leaf is None:
                    stack.append(after)
                else:
                    leaves.append(leaf)
    return Reached(leaves, met, passed, visited)


def activations_after(
    outputs: Iterable[Node], nodes: Iterable[Node], alone: Collection[Node] = ()
) -> dict[Node, str]:
    """Return, by node, the activation functions that were applied to the given nodes directly.

    Args:
        outputs: Nodes of the network's outputs.
        nodes: The nodes.
        alone: Nodes of which only those are returned that nothing else uses.
    """
    wanted, found = {*nodes}, dict[Node, str]()
    uses = Counter[Node]()
    stack = [*outputs]
    seen = {*stack}
    while stack:
        node = stack.pop()
        inputs = [before for before, _ in node.next_functions if before is not None]
        kind = activation_function(node)
        if kind is not None and inputs[0] in wanted:
            found[inputs[0]] = kind
        uses.update(before for before in inputs if before in wanted)
        stack += [before for before in inputs if before not in seen]
        seen.update(inputs)
    return {node: kind for node, kind in found.items() if node not in alone or uses[node] == 1}


def is_made_from(starts: Iterable[Node], end: Node) -> bool:
    """Return whether any of these nodes was made from another one."""
    number = creation_number(end)
    stack = [node for node in starts if node is not end]
    seen = {*stack}
    while stack:
        for before, _ in stack.pop().next_functions:
            if before is end:
                return True
            if before is None or leaf_of(before) is not None or before in seen:
                continue
            if creation_number(before) > number:
                seen.add(before)
                stack.append(before)
    return False


class PartChain:
    """The parts of a forward pass, each of which must begin where the one before ends.

    Args:
        entrances: Nodes of the network's inputs.
    """

    def __init__(self, entrances: Iterable[Node] = ()) -> None:
        self._mark = object()
        self._entrances = [*entrances]
        self._last: tuple[str, Node] | None = None
        self._names: set[str] = set()

    def end_part(self, name: str | None, ends: Iterable[Node]) -> Reached:
        """Check a part that ends with the cut of that name, or at the network's output (None).

        Raises:
            DNIError: It is connected to earlier parts by another way than through the last cut.
        """
        if name in self._names:
            raise DNIError(
                f"eager: the cut {name!r} comes twice in one forward pass, and does not separate "
                "the network: leave its module out of layers, or leave eager out"
            )
        last = [] if self._last is None else [self._last[1]]
        reached = walk(ends, [*last, *self._entrances], self._mark)
        if self._last is not None and (reached.passed or self._last[1] not in reached.ends):
            raise DNIError(
                f"eager: the cut {self._last[0]!r} does not separate the network: layers after it "
                "are connected to layers before it by another way too (a skip connection, a "
                "branch, an output of its own). Cut where everything goes through one activation "
                "(layers=N, a number, finds such places), or leave eager out"
            )
        if name is not None:
            _check_checkpoints(name, reached.nodes)
            self._names.add(name)
        return reached

    def begin_part(self, name: str, node: Node) -> None:
        """Let the next part begin at the node that the cut of that name passes on."""
        self._last = name, node
        cast("dict[str, object]", node.metadata)[_MARK] = self._mark


def _check_checkpoints(name: str, nodes: Iterable[Node]) -> None:
    if any(map(is_reentrant_checkpoint, nodes)):
        raise DNIError(
            f"eager: the part that ends at the cut {name!r} holds a checkpoint with "
            "use_reentrant=True, through which the gradients of a part alone cannot be computed: "
            "give torch.utils.checkpoint use_reentrant=False, or leave eager out"
        )


def connections_around(outputs: Iterable[Node], places: Sequence[Node]) -> list[int | None]:
    """Return how many activations pass around each place in a graph; None where it is not in it.

    An activation passes around a place where it was made before it, and is an output or is used by
    a node made after it; parameters do not count. A place that none passes around separates the
    graph: everything goes through it.

    Args:
        outputs: Nodes of the network's outputs.
        places: Nodes, in the order in which they were made.
    """
    order = [creation_number(node) for node in places]
    last = {node: len(places) for node in outputs}  # by node, the first place after its last use
    stack = [*last]
    seen = {*stack}
    while stack:
        node = stack.pop()
        use = bisect_left(order, creation_number(node))
        for before, _ in node.next_functions:
            if before is None or leaf_of(before) is not None:
                continue
            last[before] = max(last.get(before, 0), use)
            if before not in seen:
                seen.add(before)
                stack.append(before)
    changes = [0] * (len(places) + 1)
    for node, end in last.items():
        begin = bisect_right(order, creation_number(node))
        if begin < end:
            changes[begin] += 1
            changes[end] -= 1
    counts = accumulate(changes[:-1])
    return [n if place in seen else None for place, n in zip(places, counts, strict=True)]
