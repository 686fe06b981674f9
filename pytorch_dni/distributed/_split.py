"""Cutting a network into the parts of a pipeline."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn, Tensor
from torch.utils.flop_counter import FlopCounterMode

from .._checks import check_whole
from ..errors import DNIError, SelectionError
from ..placement._untouched import untouched
from ._traced import traced_parts


def split(
    network: nn.Module,
    parts: int | Sequence[str],
    example: Tensor | tuple[Tensor, ...] | None = None,
) -> list[nn.Module]:
    """Cut a network into parts that follow one another.

    The parts have the parameters of the network itself, under the same names: the state dicts of
    all parts together are that of the network.

    Args:
        network: An ``nn.Sequential``, or, with an example, any network that
            ``torch.distributed.pipelining`` can trace.
        parts: The number of parts, of about equal cost, for ``nn.Sequential``; or the names of the
            modules with which the second part and the later ones begin.
        example: Input of the network; a tuple for several. It tells the cost of the modules of an
            ``nn.Sequential``; without it, their numbers of parameters do.

    Raises:
        DNIError: The network cannot be divided so.
        SelectionError: A module that is named is not there.
    """
    if isinstance(parts, int) or isinstance(network, nn.Sequential):
        if not isinstance(network, nn.Sequential):
            raise DNIError(
                f"split() into {parts} parts takes an nn.Sequential; of a "
                f"{type(network).__name__}, name the modules with which parts begin: "
                f"{_names(network)}, and give an example"
            )
        return _split_sequence(network, parts, example)
    if example is None:
        raise DNIError(
            f"split() needs an example, an input of the {type(network).__name__}, to trace it with"
        )
    for name in parts:
        if name not in dict(network.named_modules()):
            raise SelectionError(f"no module {name!r} to begin a part; there are {_names(network)}")
    return traced_parts(network, parts, example if isinstance(example, tuple) else (example,))


def _names(network: nn.Module) -> str:
    names = [name for name, _ in network.named_modules() if name]
    return ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")


def _split_sequence(
    network: nn.Sequential, parts: int | Sequence[str], example: Tensor | tuple[Tensor, ...] | None
) -> list[nn.Module]:
    children = [*network.named_children()]
    names = [name for name, _ in children]
    if isinstance(parts, int):
        check_whole("parts", parts, 1)
        if parts > len(children):
            raise DNIError(
                f"split() cannot make {parts} parts of {len(children)} modules: take fewer, or "
                "divide a module into several"
            )
        starts = balanced_starts(_costs(network, example), parts)
    else:
        for name in parts:
            if name not in names:
                listed = ", ".join(names)
                raise SelectionError(f"no module {name!r} to begin a part; there are {listed}")
        starts = [0, *(names.index(name) for name in parts)]
        if starts != sorted({*starts}):
            raise DNIError(
                f"parts begin at {[*parts]}: name later modules than the first, in order"
            )
    ends = [*starts[1:], len(children)]
    return [
        nn.Sequential(OrderedDict(children[start:end]))
        for start, end in zip(starts, ends, strict=True)
    ]


def _costs(network: nn.Sequential, example: Tensor | tuple[Tensor, ...] | None) -> list[float]:
    """Return the cost of each module: operations with an example, parameters without."""
    if example is None:
        return [float(sum(p.numel() for p in child.parameters())) for child in network]
    value = example[0] if isinstance(example, tuple) else example
    costs = []
    with untouched(network, [value]):
        for child in network:
            with FlopCounterMode(display=False) as counter:
                value = child(value)
            costs.append(float(counter.get_total_flops()))
    return costs


def balanced_starts(costs: Sequence[float], parts: int) -> list[int]:
    """Return where parts begin, so that the cost of the most expensive one is least.

    Modules that cost nothing, such as activation functions, stay with the module before them.
    """
    count = len(costs)
    # By modules and parts so far: the largest cost, and where parts begin.
    best: dict[tuple[int, int], tuple[float, list[int]]] = {(0, 0): (0.0, [])}
    starts: list[int]
    for made in range(1, parts + 1):
        for end in range(made, count - (parts - made) + 1):
            found: tuple[tuple[float, int], float, list[int]] | None = None
            for start in range(made - 1, end):
                if (start, made - 1) not in best:
                    continue
                most, starts = best[start, made - 1]
                cost = max(most, sum(costs[start:end]))
                # With equal costs, the part begins at a module that costs something.
                key = (cost, 0 if start == 0 or costs[start] else 1)
                if found is None or key <= found[0]:
                    found = key, cost, [*starts, start]
            if found is not None:
                best[end, made] = found[1:]
    return best[count, parts][1]
