"""A row of the matrix, what is expected of it, and the ways to learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TYPE_CHECKING

if TYPE_CHECKING:
    from tests.matrix.session import Session


class Way(NamedTuple):
    """A way to learn: arguments of ``DNI``.

    Attributes:
        title: What the page calls it.
        exact: Arguments with which every gradient is that of backpropagation.
        trains: Arguments with which the first pass and the last ones learn from predictions.
    """

    title: str
    exact: Mapping[str, Any]
    trains: Mapping[str, Any]


def _warm_up(step: int) -> float:
    """Return lambda: the second step is exact, so that all synthesizers have learned by then."""
    return float(step == 1)


def _always_exact(step: int) -> int:
    return 1


def _mixing(title: str, **options: Any) -> Way:
    return Way(title, {**options, "bp_lambda": 1.0}, {**options, "bp_lambda": _warm_up})


WAYS = {
    "default": _mixing("default"),
    "update": _mixing('`unlock="update"`', unlock="update"),
    "eager": _mixing("`eager=True`", eager=True),
    "exact every": Way("`exact_every=2`", {"exact_every": _always_exact}, {"exact_every": 2}),
}


@dataclass(frozen=True)
class Works:
    """It is exact where it can be, trains, and ``unwrap()`` restores the network.

    Attributes:
        options: Arguments of ``DNI`` that it takes.
    """

    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """One ``DNIError`` is raised before anything has changed.

    Attributes:
        message: What the error says, among others.
        instead: Arguments of ``DNI`` with which the way works; None where there are none.
        in_backward: Whether it is raised in the backward pass: nothing but gradients has changed
            by then that the bare network would not have changed.
    """

    message: str
    instead: Mapping[str, Any] | None = None
    in_backward: bool = False


@dataclass(frozen=True)
class PyTorchError:
    """The bare network raises an error, and the wrapped one the same.

    Attributes:
        message: What the error says, among others.
    """

    message: str


Expected = Works | Refused | PyTorchError


# A layer inside of a block does not separate the network; the error names what does.
AROUND = "does not separate the network"
REENTRANT = Refused("give torch.utils.checkpoint use_reentrant=False")
BY_PARTS = {"eager": Refused(AROUND, instead={"layers": 2})}


@dataclass(frozen=True)
class Row:
    """One thing that people do, on all ways.

    Attributes:
        name: What it is.
        run: Builds networks, wraps them by ``session.wrap``, and trains each for an even number of
            passes, four or more.
        remark: What the page says about it.
        expected: What is expected on all ways; or on each by name, where the others work.
        needs: Packages that it needs besides those of ``requirements.txt``.
        slow: Whether it is left out of the usual run of the tests.
        ranks: How many processes run it, in a process group of gloo.
        finite: Whether all parameters are finite at the end.
        learns: Whether all parameters that backpropagation moves are moved by predictions.
    """

    name: str
    run: Callable[[Session], None]
    remark: str = ""
    expected: Expected | Mapping[str, Expected] = Works()
    needs: tuple[str, ...] = ()
    slow: bool = False
    ranks: int = 1
    finite: bool = True
    learns: bool = True

    @property
    def marked(self) -> bool:
        """Whether ``pytest -m matrix`` alone runs it."""
        return self.slow or bool(self.needs)

    def expects(self, way: str) -> Expected:
        """Return what is expected on a way."""
        if isinstance(self.expected, Mapping):
            return self.expected.get(way, Works())
        return self.expected
