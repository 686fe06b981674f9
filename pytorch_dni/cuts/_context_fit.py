"""The cuts that a context fits; some of those that were found by themselves may be passed over."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Protocol

from torch import Size, Tensor

from .._checkpoint import mapping, text
from ..context import Context
from ..errors import ContextShapeError
from ..interfaces import OutputError
from ..placement import ErrorPlace, Site
from ._errors import PassErrors
from ._factory import Interface
from ._inputs import ForwardInputs
from ._interface_set import InterfaceSet


class Checks(Protocol):
    """An interface, as the check of a context sees it."""

    def check_values(self, context: Context) -> None:
        """Raise where the values of a context do not suit the synthesizer."""


class ContextFit:
    """Checks the context at each cut, and passes over cuts that it cannot fit.

    An activation need not have the samples of the batch: that of position embeddings has one row
    for all samples, and that of an expert in a mixture some of the tokens. Where the wrapper found
    the cuts by itself, and the context fits others of them, such a cut is passed over: no
    synthesizer predicts there, and the part goes on to the next cut. A context that fits no cut is
    an error.

    Args:
        interfaces: The interfaces at the cuts.
        inputs: Knows the context of the forward pass.
        automatic: Whether the wrapper found the cuts by itself.

    Attributes:
        passed_over: By the name of the cut, why it is passed over.
    """

    def __init__(self, interfaces: InterfaceSet, inputs: ForwardInputs, automatic: bool) -> None:
        self._interfaces = interfaces
        self._inputs = inputs
        self._automatic = automatic
        self.passed_over: Mapping[str, str] = {}
        self._found: dict[str, tuple[str, ContextShapeError]] = {}  # in the running pass
        self._kind: tuple[int, bool] | None = None  # of contexts so far: dimensions, features
        self._running = False
        self._fits = False

    def __getstate__(self) -> dict[str, Any]:
        # Errors hold the frames of a pass.
        return {**self.__dict__, "_found": {}}

    def begin(self, others: Iterable[Checks] = ()) -> None:
        """Begin a forward pass of training.

        Args:
            others: Further interfaces that get the context.

        Raises:
            ContextError: The values of the context do not suit an interface.
        """
        self._found, self._fits = {}, False
        self._running = True
        context = self._inputs.context()
        if context is not None:
            for interface in (*self._interfaces.by_name.values(), *others):
                interface.check_values(context)

    def interface(self, site: Site, activation: Tensor, errors: PassErrors) -> Interface | None:
        """Return the interface at a cut, built where there is none; None to pass over.

        Args:
            site: The site of the cut.
            activation: The activation there.
            errors: Takes the error of the pass.

        Raises:
            DNIError: No synthesizer can be built, or it or the context does not fit.
        """
        name = site.name
        known = self._interfaces.get(name)
        interface = known or self._interfaces.build(site, activation, error=errors.place)
        if not self._fits_at(name, interface, activation, errors.current):
            return None
        if known is None:
            self._interfaces.add(interface, name, activation)
        return interface

    def _fits_at(
        self, name: str, interface: Interface, activation: Tensor, error: OutputError
    ) -> bool:
        """Return whether the context of the scope fits at a cut.

        Raises:
            ContextError: It does not, and the cut may not be passed over.
        """
        try:
            self._interfaces.check(interface, activation, error)
        except ContextShapeError as misfit:
            context = self._inputs.context()
            assert context is not None
            if not (self._running and self._automatic) or self._kind not in (None, _kind(context)):
                raise
            shapes = tuple(activation.shape), tuple(context.raw.shape)
            why = f"a context of shape {shapes[1]} does not fit its activation of shape {shapes[0]}"
            self._found[name] = why, misfit
            return False
        self._fits = True
        return True

    def end(self) -> None:
        """End a forward pass: the context must have fitted somewhere.

        Raises:
            ContextError: It fits no cut that the pass has reached.
        """
        self._running = False
        found, self._found = self._found, {}
        if found and not self._fits:
            raise next(iter(found.values()))[1]
        context = self._inputs.context() if self._fits else None
        self._fits = False
        if context is not None:
            self._kind = _kind(context)
        if found:
            self._pass_over({name: reason for name, (reason, _) in found.items()})

    def drop(self) -> None:
        """Drop a forward pass that raised."""
        self._found, self._running = {}, False

    def fitting(
        self,
        built: Mapping[str, Interface],
        activations: Mapping[str, Tensor],
        place: ErrorPlace | None,
    ) -> dict[str, Interface]:
        """Return the interfaces, new ones, that the context fits; the others are passed over.

        Args:
            built: The interfaces by name.
            activations: By name, the activation at the cut, of one pass.
            place: Where the error of that pass is taken, if it is.

        Raises:
            ContextError: It fits none, or one that may not be passed over.
            SynthesizerError: The answer of a synthesizer is wrong.
        """
        error = OutputError()
        if place is not None:
            error.expect(Size(place.shape))
        running, self._running = self._running, True
        fits = {n: i for n, i in built.items() if self._fits_at(n, i, activations[n], error)}
        self.end()
        self._running = running
        return fits

    def _pass_over(self, reasons: Mapping[str, str]) -> None:
        if reasons:
            self.passed_over = {**self.passed_over, **reasons}
            self._interfaces.leave_out(reasons)

    def describe(self) -> list[str]:
        """Return a line for each cut that is passed over."""
        return [f"passed over: {name!r}: {why}" for name, why in self.passed_over.items()]

    def state_dict(self) -> dict[str, str]:
        """Return the state as plain data."""
        return {**self.passed_over}

    def prepare_load(self, state: Any, cuts: Container[str]) -> Callable[[], None]:
        """Read a saved state, and return a function that loads it; it cannot fail.

        Args:
            state: The saved state.
            cuts: Names of the saved cuts, whose interfaces are loaded before.

        Raises:
            TypeError, ValueError: It does not fit the cuts.
        """
        saved = {name: text(reason) for name, reason in mapping(state).items()}
        if not all(name in cuts for name in saved):
            raise ValueError(f"{[*saved]} are not all cuts")

        def load() -> None:
            self.passed_over, self._kind = {}, None
            self._pass_over(saved)

        return load


def _kind(context: Context) -> tuple[int, bool]:
    return context.raw.dim(), context.raw.is_floating_point()
