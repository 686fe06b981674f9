"""What is computed of per-example gradients, layer by layer as the backward pass goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from functools import reduce
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ..errors import DNIError
from ._directions import Directions
from ._forms import GradientForm
from ._rows import EmbeddedRows, RowGradients

_Value = TypeVar("_Value")


class Quantity(ABC, Generic[_Value]):
    """Something computed of each parameter's per-example gradients in one backward pass."""

    def __init__(self) -> None:
        self._values: dict[str, _Value] = {}

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise :class:`DNIError` where the quantity does not fit the parameters."""

    def begin(self) -> None:
        """Forget the backward pass before."""
        self._values = {}

    @abstractmethod
    def receive(self, name: str, form: GradientForm, alone: bool) -> None:
        """Take a parameter's gradients from one use.

        Args:
            name: The parameter's qualified name.
            form: The gradients.
            alone: Whether no other use of the parameter can follow.
        """

    def values(self) -> Mapping[str, _Value]:
        """Return the values by the parameters' names."""
        return self._values


class FullQuantity(Quantity["Tensor | RowGradients"]):
    """The gradients themselves.

    Args:
        out: Buffers by name, used again and filled up; None makes new tensors in each pass.
        sparse: Give gradients of embeddings by the rows that are used.
    """

    def __init__(self, out: MutableMapping[str, Tensor] | None, sparse: bool) -> None:
        super().__init__()
        self._out, self._sparse = out, sparse
        self._rows: dict[str, EmbeddedRows] = {}

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise :class:`DNIError` where a buffer does not fit its parameter."""
        for name, buffer in ({} if self._out is None else self._out).items():
            parameter = parameters.get(name)
            if parameter is None:
                raise DNIError(
                    f"out has a buffer for {name!r}, which is none of the parameters that require "
                    f"a gradient: {', '.join(parameters)}"
                )
            shape = buffer.shape[1:] if isinstance(buffer, Tensor) and buffer.dim() else None
            if shape != parameter.shape or buffer.requires_grad or not buffer.is_contiguous():
                raise DNIError(
                    f"out[{name!r}] must be a contiguous tensor of shape "
                    f"(batch, {', '.join(map(str, parameter.shape))}) without a gradient"
                )

    def begin(self) -> None:
        """Forget the backward pass before."""
        super().begin()
        self._rows = {}

    def receive(self, name: str, form: GradientForm, alone: bool) -> None:
        """Take a parameter's gradients from one use."""
        if self._sparse and (isinstance(form, EmbeddedRows) or name in self._rows):
            self._receive_rows(name, form)
            return
        known = self._values.get(name)
        if isinstance(known, Tensor):
            form.write(known, add=True)
            return
        buffer = self._buffer(name, form)
        form.write(buffer, add=False)
        self._values[name] = buffer

    def _receive_rows(self, name: str, form: GradientForm) -> None:
        joined = form if name not in self._rows else self._rows[name].joined(form)
        if not isinstance(joined, EmbeddedRows) or name in self._values.keys() - self._rows.keys():
            raise DNIError(
                f"the parameter {name!r} is used by an embedding and by another layer, whose "
                "gradients have all rows: give sparse=False"
            )
        self._rows[name] = joined
        self._values[name] = RowGradients(*joined.used())

    def _buffer(self, name: str, form: GradientForm) -> Tensor:
        like, shape = form.any_tensor(), (form.batch, *form.shape)
        buffer = None if self._out is None else self._out.get(name)
        if buffer is None or len(buffer) < form.batch:
            buffer = like.new_empty(shape)
            if self._out is not None:
                self._out[name] = buffer
        if buffer.dtype != like.dtype or buffer.device != like.device:
            raise DNIError(
                f"out[{name!r}] is {buffer.dtype} on {buffer.device}, but the gradients are "
                f"{like.dtype} on {like.device}: leave it out of out"
            )
        return buffer[: form.batch]


class PairQuantity(Quantity[Tensor]):
    """A quantity that is quadratic in the gradients, for which all uses of a parameter are joined.

    Where a parameter may be used again in the same backward pass, its gradients wait in the form
    in which they came.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[str, list[GradientForm]] = {}

    def begin(self) -> None:
        """Forget the backward pass before."""
        super().begin()
        self._waiting = {}

    def receive(self, name: str, form: GradientForm, alone: bool) -> None:
        """Take a parameter's gradients from one use."""
        if alone and (not self._waiting or name not in self._waiting):
            self._values[name] = self._compute(form)
        else:
            self._waiting.setdefault(name, []).append(form)

    def values(self) -> Mapping[str, Tensor]:
        """Return the values by the parameters' names."""
        waiting, self._waiting = self._waiting, {}
        for name, forms in waiting.items():
            self._values[name] = self._compute(reduce(lambda a, b: a.joined(b), forms))
        return self._values

    @abstractmethod
    def _compute(self, form: GradientForm) -> Tensor: ...


class NormQuantity(PairQuantity):
    """Norms ``(batch,)``."""

    def _compute(self, form: GradientForm) -> Tensor:
        return form.norms()


class DotQuantity(PairQuantity):
    """Inner products of all pairs of examples ``(batch, batch)``."""

    def _compute(self, form: GradientForm) -> Tensor:
        return form.gram()


class ProjectionQuantity(Quantity[Tensor]):
    """Random projections ``(batch, dim)``.

    Args:
        directions: What is projected on.
        check: Called with the parameters before anything runs.
    """

    def __init__(
        self, directions: Directions, check: Callable[[Mapping[str, Tensor]], None]
    ) -> None:
        super().__init__()
        self._directions, self._check = directions, check

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise :class:`DNIError` where the quantity does not fit the parameters."""
        self._check(parameters)

    def receive(self, name: str, form: GradientForm, alone: bool) -> None:
        """Take a parameter's gradients from one use."""
        directions = self._directions.of(name, form.shape, form.any_tensor())
        projected = form.project(directions)
        known = self._values.get(name)
        self._values[name] = projected if known is None else known.add_(projected)


def total_norm(values: Mapping[str, Tensor]) -> Tensor:
    """Return the norms over all parameters ``(batch,)``."""
    total: Tensor = torch.linalg.vector_norm(torch.stack([*values.values()]), dim=0)
    return total


def total_sum(values: Mapping[str, Tensor]) -> Tensor:
    """Return the sum over all parameters."""
    first, *others = values.values()
    total = first.clone()
    for other in others:
        total.add_(other)
    return total
