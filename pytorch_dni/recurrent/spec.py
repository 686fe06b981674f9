"""How a stateful module takes its state and returns the next one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn, Tensor

from .._checks import check_whole
from .._tree import floating_tensors, map_floating
from ..errors import describe, DNIError


@dataclass(frozen=True)
class StateSpec:
    """How a stateful module's call takes a state and returns the next one.

    The state may be any tree of tensors: a tensor, tuples, lists, mappings or dataclasses of them.

    Args:
        argument: Position of the state among the call's positional arguments.
        keyword: Its name, where it is given as a keyword; None where it never is.
        result: Index or key of the next state in the returned tuple, list or mapping; None where
            the whole output is the state.
        batch_dim: Dimension of the samples in each tensor of the state.
    """

    argument: int = 1
    keyword: str | None = None
    result: int | str | None = 1
    batch_dim: int = 0

    def __post_init__(self) -> None:
        check_whole("StateSpec: argument", self.argument, 0)
        check_whole("StateSpec: batch_dim", self.batch_dim)
        if self.keyword is not None and not isinstance(self.keyword, str):
            raise DNIError(f"StateSpec: keyword must be a text or None, got {self.keyword!r}")
        if self.result is not None and not isinstance(self.result, str):
            check_whole("StateSpec: result, where it is no text or None,", self.result)

    def state_in(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the state in the arguments of a call; None where there is none."""
        if self.keyword is not None and self.keyword in kwargs:
            return kwargs[self.keyword]
        return args[self.argument] if len(args) > self.argument else None

    def with_state(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], state: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with another state."""
        if self.keyword is not None and self.keyword in kwargs:
            return args, {**kwargs, self.keyword: state}
        return (*args[: self.argument], state, *args[self.argument + 1 :]), kwargs

    def state_returned(self, name: str, output: Any) -> Any:
        """Return the next state in the output of a call.

        Raises:
            DNIError: There is none.
        """
        if self.result is None:
            return output
        try:
            return output[self.result]
        except (TypeError, KeyError, IndexError) as error:
            raise DNIError(
                f"{name!r} returned a {type(output).__name__} without a state at "
                f"{self.result!r}: correct result= in its StateSpec"
            ) from error


# States are (layers, batch, features) in modules for sequences, (batch, features) in cells.
_KNOWN: tuple[tuple[type[nn.Module], StateSpec], ...] = (
    (nn.RNNBase, StateSpec(1, "hx", 1, -2)),
    (nn.RNNCellBase, StateSpec(1, "hx", None, -2)),
)


def known(module: nn.Module) -> StateSpec | None:
    """Return the specification of PyTorch's own recurrent modules; None for other modules."""
    return next((spec for kind, spec in _KNOWN if isinstance(module, kind)), None)


def join_state(state: Any, batch_dim: int) -> Tensor:
    """Concatenate all tensors of a state: ``(batch, features)``.

    Raises:
        DNIError: There is no dense floating-point tensor, or the numbers of samples differ.
    """
    tensors = floating_tensors(state)
    if not tensors:
        raise DNIError(f"a state must hold floating-point tensors, but this is {state!r}")
    if any(tensor.layout != torch.strided for tensor in tensors):
        raise DNIError(f"the tensors of a state must be dense, but this is {state!r}")
    rows = [_rows(tensor, batch_dim) for tensor in tensors]
    if len({len(row) for row in rows}) > 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise DNIError(
            f"the tensors of a state, {shapes}, have different numbers of samples in dimension "
            f"{batch_dim}: correct batch_dim in the StateSpec"
        )
    dtype = rows[0].dtype
    return rows[0] if len(rows) == 1 else torch.cat([row.to(dtype) for row in rows], 1)


def split_state(joined: Tensor, like: Any, batch_dim: int) -> Any:
    """Return a state in the form of ``like`` from its concatenated tensors."""
    tensors = floating_tensors(like)
    sizes = [_rows(tensor, batch_dim).shape[1] for tensor in tensors]
    parts = iter(
        _tensor(part, tensor, batch_dim)
        for part, tensor in zip(joined.split(sizes, 1), tensors, strict=True)
    )
    return map_floating(like, lambda tensor: next(parts))


def _rows(tensor: Tensor, batch_dim: int) -> Tensor:
    if not -tensor.dim() <= batch_dim < tensor.dim():
        return tensor.reshape(1, -1)  # a single sample
    moved = tensor.movedim(batch_dim, 0)
    return moved.reshape(len(moved), math.prod(moved.shape[1:]))


def _tensor(rows: Tensor, like: Tensor, batch_dim: int) -> Tensor:
    if not -like.dim() <= batch_dim < like.dim():
        return rows.reshape(like.shape)
    shape = like.movedim(batch_dim, 0).shape
    return rows.to(like.dtype).reshape(shape).movedim(0, batch_dim).contiguous()


def resolve(
    network: nn.Module, recurrent: bool | Mapping[str, StateSpec | None] | None, spatial: bool
) -> dict[str, StateSpec]:
    """Return the specifications that the user asks for, by qualified name.

    Args:
        network: The network.
        recurrent: The argument of the wrapper.
        spatial: Whether the user asks for cuts in space.

    Raises:
        DNIError: A name is not in the network, or its module needs a specification.
    """
    modules = dict(network.named_modules())
    found = {name: known(module) for name, module in modules.items()}
    own = {name: spec for name, spec in found.items() if spec is not None}
    if recurrent is None:
        return {} if spatial else own
    if recurrent is False:
        return {}
    if recurrent is True:
        if not own:
            raise DNIError(
                "recurrent=True finds no RNN, LSTM, GRU or cell of PyTorch's in the network: "
                "describe its stateful modules, recurrent={'name': StateSpec(...)}"
            )
        return own
    if not isinstance(recurrent, Mapping):
        raise DNIError(
            "recurrent must be True, False or a mapping from names to StateSpec, not "
            f"{type(recurrent).__name__}"
        )
    return {name: _described(name, spec, modules, own) for name, spec in recurrent.items()}


def _described(
    name: str,
    spec: StateSpec | None,
    modules: Mapping[str, nn.Module],
    own: Mapping[str, StateSpec],
) -> StateSpec:
    """Return the specification of one module that the user names."""
    if name not in modules:
        raise DNIError(f"recurrent: there is no module {name!r} in the network")
    spec = own.get(name) if spec is None else spec
    if not isinstance(spec, StateSpec):
        raise DNIError(
            f"recurrent: {describe(name, modules[name])} needs a StateSpec, not {spec!r}"
        )
    return spec
