"""Parts of about equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ._tree import floats


class Cost(TorchDispatchMode):
    """While active, counts floating-point operations.

    Those of matrix products, convolutions and attention by PyTorch's own formulas; of any other
    operation one for each element that it returns.

    Attributes:
        total: Of the run so far.
        products: How many products, convolutions and attentions have run.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=output))
            self.products += 1
        elif not func.is_view:
            self.total += sum(tensor.numel() for tensor in floats(output))
        return output


def balanced(costs: Sequence[int], total: int, parts: int) -> list[int]:
    """Which of some places to cut at, so that parts cost about the same.

    Args:
        costs: Of the run up to each place, not falling.
        total: Of the whole run.
        parts: How many; there must be at least one place less.

    Returns:
        Indices, rising, one less than parts: the least sum of squares of the parts' costs.
    """
    places = len(costs)
    # For each number of cuts and each last one: the least sum so far, and the cut before that.
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
