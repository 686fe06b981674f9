"""The audit of a step: the gradients that parts learn from, beside those of backpropagation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor

from ._tree import first_activation, map_floating
from .errors import DNIError
from .placement import Part

Grads = Mapping[str, Tensor]
Closure = Callable[[Any], Tensor]


class PartAudit(NamedTuple):
    """How near the gradients of a part are to those of backpropagation.

    Attributes:
        cut: Name of the cut at the end of the part; empty for the last part and for parameters
            that belong to no part.
        cosine: Cosine similarity to the exact gradient, over all parameters of the part; NaN where
            one of the two is zero.
        norm_ratio: Norm of the gradient over that of the exact one.
        parameters: Names of the part's parameters.
        bypassing: Names of those that get a gradient also without the cuts: from a connection
            around every later cut to the loss.
    """

    cut: str
    cosine: float
    norm_ratio: float
    parameters: list[str]
    bypassing: list[str]


class Audit(NamedTuple):
    """The audit of one step.

    Attributes:
        parts: The parts, in the order of the run.
        cosines: By the name of the parameter, the cosine similarity to the exact gradient.
    """

    parts: list[PartAudit]
    cosines: dict[str, float]

    def __str__(self) -> str:
        """Return the parts as a table."""
        rows = [["part ends at", "cosine", "norm ratio", "parameters", "bypass the cuts"]]
        for part in self.parts:
            numbers = [f"{part.cosine:.3f}", f"{part.norm_ratio:.3f}"]
            counts = [str(len(part.parameters)), str(len(part.bypassing))]
            rows.append([part.cut or "(output)", *numbers, *counts])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = []
        for row in rows:
            first, *others = zip(row, widths, strict=True)
            cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            lines.append("  ".join(cells))
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(lines)


def compare(parts: Sequence[Part], found: Grads, exact: Grads, direct: Iterable[str]) -> Audit:
    """Compare gradients with the exact ones, part by part.

    Args:
        parts: The parts of the network.
        found: By name, the gradients under the wrapper.
        exact: By name, those of backpropagation.
        direct: Names of the parameters that get a gradient without the cuts.
    """
    owners = {module: part.cut for part in parts for module in part.modules}
    names: dict[str, list[str]] = {part.cut: [] for part in parts}
    for name in exact:
        names.setdefault(_owner(name, owners), []).append(name)
    direct = {*direct}
    audits = []
    for cut, members in names.items():
        if members:
            ours, theirs = (_joined(grads, members, exact) for grads in (found, exact))
            bypassing = [name for name in members if name in direct and cut]
            similarity = _cosine(ours, theirs), _norm_ratio(ours, theirs)
            audits.append(PartAudit(cut, *similarity, members, bypassing))
    cosines = {
        name: _cosine(_joined(found, [name], exact), grad.flatten().double())
        for name, grad in exact.items()
    }
    return Audit(audits, cosines)


def gradients(network: nn.Module, closure: Closure, parameters: nn.Module) -> dict[str, Tensor]:
    """Run one step, and return the gradients by the name of the parameter.

    Random numbers are as before the call.

    Args:
        network: What the closure is called with.
        closure: Runs the forward pass and returns the loss.
        parameters: The module whose parameters are read.

    Raises:
        DNIError: The closure returns no loss.
    """
    if not callable(closure):
        raise DNIError(f"audit() takes a function of the network, not {type(closure).__name__}")
    for parameter in parameters.parameters():
        parameter.grad = None
    with torch.random.fork_rng(), torch.enable_grad():
        loss = closure(network)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise DNIError(
                "audit() takes a function of the network that returns the loss, a tensor of one "
                f"element, but it returned {type(loss).__name__}"
            )
        if loss.requires_grad:
            loss.backward()
    return {n: p.grad for n, p in parameters.named_parameters() if p.grad is not None}


def cut_off(network: nn.Module, cuts: Iterable[str]) -> None:
    """Have no gradient pass the outputs of these modules."""

    def detach(module: nn.Module, args: Any, output: Any) -> Any:
        activation = first_activation(output)
        return map_floating(output, lambda t: t.detach().clone() if t is activation else t)

    for name in cuts:
        network.get_submodule(name).register_forward_hook(detach)


def _owner(parameter: str, owners: Mapping[str, str]) -> str:
    """Return the cut of the part whose module holds a parameter, at any depth."""
    name = parameter
    while name:
        name = name.rpartition(".")[0]
        if name in owners:
            return owners[name]
    return ""


def _joined(grads: Grads, names: Iterable[str], like: Grads) -> Tensor:
    """Return gradients as one vector in float64; those that are missing are zero."""
    found = [grads.get(name, torch.zeros_like(like[name])) for name in names]
    return torch.cat([grad.detach().flatten().double() for grad in found])


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def _norm_ratio(a: Tensor, b: Tensor) -> float:
    return float(a.norm() / b.norm())
