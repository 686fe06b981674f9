"""The cost of a forward pass, and parts of about equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._torch import operation_cost, TorchDispatchMode
from .._tree import floating_tensors


class Cost(TorchDispatchMode):
    """Counts floating-point operations while it is active.

    Those of matrix products, convolutions and attention are counted by PyTorch's own formulas; any
    other operation counts one for each element that it returns.

    Attributes:
        total: Operations so far.
        products: How many products, convolutions and attentions have run.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.total = 0
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        cost = operation_cost(func, args, kwargs, output)
        if cost is not None:
            self.total += cost
            self.products += 1
        elif not func.is_view:
            self.total += sum(tensor.numel() for tensor in floating_tensors(output))
        return output


def balanced(costs: Sequence[int], total: int, parts: int) -> list[int]:
    """Choose places to cut at, so that the parts cost about the same.

    Args:
        costs: Cost of the pass up to each place, not falling.
        total: Cost of the whole pass.
        parts: How many parts; there must be at least one place less.

    Returns:
        Indices of places, rising, one less than parts. They have the least sum of squares of the
        parts' costs.
    """
    places = len(costs)
    # For each number of cuts and each last cut: the least sum so far, and the cut before the last.
    least: list[list[tuple[float, int]]] = [[(float(cost) ** 2, -1) for cost in costs]]
    for cuts in range(1, parts - 1):
        row = []
        for last in range(places):
            options = [
                (least[-1][before][0] + float(costs[last] - costs[before]) ** 2, before)
                for before in range(cuts - 1, last)
            ]
            row.append(min(options, default=(float("inf"), -1)))
        least.append(row)
    ends = [(least[-1][i][0] + float(total - costs[i]) ** 2, i) for i in range(places)]
    chosen = [min(ends)[1]]
    for row in reversed(least[1:]):
        chosen.append(row[chosen[-1]][1])
    return chosen[::-1]
