"""What the contexts give: tensors of the last backward pass by the names of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from torch import Tensor

from ..errors import DNIError
from ._quantities import Quantity

_Value = TypeVar("_Value")


class IndividualValues(Mapping[str, _Value], Generic[_Value]):
    """Values of the last backward pass, by the qualified names of parameters.

    Parameters that the backward pass did not reach are not in it. It stays as it is when the
    context has ended.

    Args:
        quantity: What computes the values.
    """

    def __init__(self, quantity: Quantity[_Value]) -> None:
        self._quantity = quantity

    def __getitem__(self, name: str) -> _Value:
        values = self._quantity.values()
        if name not in values:
            known = ", ".join(values) or "none: call loss.backward() inside the context"
            raise MissingValueError(
                f"the last backward pass has reached no parameter {name!r}; it has reached {known}"
            )
        return values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._quantity.values())

    def __len__(self) -> int:
        return len(self._quantity.values())

    def __contains__(self, name: object) -> bool:
        return name in self._quantity.values()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self)})"


class MissingValueError(DNIError, KeyError):
    """A parameter has no value: the last backward pass has not reached it."""

    def __str__(self) -> str:
        return str(self.args[0])


class SummedValues(IndividualValues[Tensor]):
    """Values of the last backward pass by name, and over all parameters.

    Args:
        quantity: What computes the values.
        summed: Computes the value over all parameters.
    """

    def __init__(
        self, quantity: Quantity[Tensor], summed: Callable[[Mapping[str, Tensor]], Tensor]
    ) -> None:
        super().__init__(quantity)
        self._summed = summed

    @property
    def total(self) -> Tensor:
        """The value over all parameters.

        Raises:
            DNIError: There was no backward pass yet.
        """
        values = self._quantity.values()
        if not values:
            raise DNIError("there is no total yet: call loss.backward() inside the context")
        return self._summed(values)
