"""The context in which per-example gradients of a network are taken."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from torch import nn
from torch.utils.hooks import RemovableHandle

from .._checks import check_choice, check_flag, check_whole
from ..errors import describe, DNIError
from ._checks import PassCheck, watch
from ._passes import Passes
from ._plan import Plan
from ._quantities import Quantity
from ._tracking import RootForward, TrackedForward

_ALL = "*"
_Result = TypeVar("_Result")

Reduction: TypeAlias = Literal["sum", "mean"]


class IndividualContext(Generic[_Result]):
    """Takes per-example gradients in the backward passes of a network, while it is entered.

    Each layer's ``forward`` is replaced inside of it, and restored at its end.

    Args:
        network: The network, wrapped or not.
        quantity: What is computed.
        result: What entering returns.
        reduction: ``"sum"`` or ``"mean"``, of the loss over the batch.
        grad: Whether ``grad`` of the parameters is computed too.
        batch_dim: The dimension of examples; a mapping gives that of single layers by name.
    """

    def __init__(
        self,
        network: nn.Module,
        quantity: Quantity[Any],
        result: _Result,
        reduction: Reduction,
        grad: bool,
        batch_dim: int | Mapping[str, int],
    ) -> None:
        if not isinstance(network, nn.Module):
            raise DNIError(f"the network must be a module, not {type(network).__name__}")
        check_choice("reduction", reduction, ("sum", "mean"))
        check_flag("grad", grad)
        self._network, self._result = bare(network), result
        self._dims = _dimensions(self._network, batch_dim)
        _check_grad(network, grad)
        self._quantity, self._mean, self._grad = quantity, reduction == "mean", grad
        self._entered: tuple[Passes, list[RootForward | TrackedForward | RemovableHandle]] | None
        self._entered = None

    def __enter__(self) -> _Result:
        if self._entered is not None:
            raise DNIError("the context has been entered already: make another one")
        passes = Passes(self._quantity, self._grad, self._mean)
        plan = Plan(self._network, passes.pause)
        self._check_names(plan)
        passes.check_with(PassCheck(plan.parameters, self._mean, self._grad))
        handles: list[RootForward | TrackedForward | RemovableHandle] = []
        self._entered = passes, handles
        for layer, rule in plan.layers:
            dim = self._dims.get(layer.name, self._dims.get(_ALL, 0))
            handles.append(TrackedForward(passes, layer, rule, dim))
        handles.append(RootForward(self._network, passes.begin_forward, passes.end_forward))
        if not self._grad:
            handles += watch(plan.parameters)
        return self._result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._entered is not None  # a context is left after it was entered
        passes, handles = self._entered
        self._entered = None
        for handle in reversed(handles):
            handle.remove()
        passes.end()

    def _check_names(self, plan: Plan) -> None:
        """Raise where ``batch_dim`` or ``out`` name what the network does not have."""
        names = {name for name, _ in self._network.named_modules()}
        unknown = [name for name in self._dims if name != _ALL and name not in names]
        if unknown:
            raise DNIError(
                f"batch_dim names {', '.join(map(repr, unknown))}, but the network has "
                f"{', '.join(map(repr, sorted(names)))}"
            )
        self._quantity.check(plan.parameters)


def bare(network: nn.Module) -> nn.Module:
    """Return the network inside of wrappers that synthetic gradients put around it.

    Such a wrapper has it as ``network``, and gives it back by ``unwrap``.
    """
    while hasattr(network, "unwrap") and isinstance(getattr(network, "network", None), nn.Module):
        network = getattr(network, "network")  # noqa: B009 - a tensor or a module for mypy
    return network


def _check_grad(network: nn.Module, grad: bool) -> None:
    if not grad and getattr(network, "eager", False) and bare(network) is not network:
        raise DNIError(
            f"{describe('', network)} with eager=True computes gradients of parts in the forward "
            "pass, from those of their parameters: give grad=True"
        )


def _dimensions(network: nn.Module, given: int | Mapping[str, int]) -> dict[str, int]:
    """Return the dimension of examples by name of layer, and of all others."""
    dims = dict(given) if isinstance(given, Mapping) else {_ALL: given}
    for name, dim in dims.items():
        check_whole(f"batch_dim[{name!r}]" if isinstance(given, Mapping) else "batch_dim", dim, 0)
    for name, module in network.named_modules():
        if isinstance(module, nn.RNNBase):
            dims.setdefault(name, 0 if module.batch_first else 1)
    return dims
