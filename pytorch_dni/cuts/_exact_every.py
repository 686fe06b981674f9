"""Exact gradients in one step of k; in the other steps no gradient crosses a cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from .._backward_pass import current_backward_pass
from .._objects import replace_differentiable
from ..context import Context
from ..interfaces import BackwardInterface
from ..interfaces._autograd import attach_gradients
from ..interfaces._error import OutputError
from ..interfaces._gradient_crossing import CutPolicy
from ._copies import InPlaceWatch, TriggerCopies
from ._delivery_watch import DeliveryWatch
from ._errors import PassErrors
from ._factory import Interface
from ._methods import CutMethod
from ._policy import UpdatePolicy


class ExactEveryCuts(CutMethod):
    """Passes exact gradients in some steps, and cuts the graph in the others.

    In an exact step the gradients are those of backpropagation, which teach the synthesizers. In
    the other steps each part begins at a detached activation, so that the gradients of inputs are
    not even computed. When the gradient of the output arrives, every part gets its synthetic
    gradient at once.

    Args:
        exact: The method of exact steps.
        policy: Says which steps are exact.
        errors: Takes the error of each pass.
        copies: The cuts whose activation has to be copied.
    """

    detaches: ClassVar[bool] = True

    def __init__(
        self,
        exact: CutMethod,
        policy: UpdatePolicy,
        errors: PassErrors,
        copies: TriggerCopies,
    ) -> None:
        self._exact = exact
        self._policy = policy
        self._errors = errors
        self._copies = copies
        self._pass: DetachedPass | None = None
        # Makes a pass like the last one; None where that was exact.
        self._again: Callable[[], DetachedPass] | None = None
        self._delivered = False  # whether a backward pass has reached the output of such a step

    def __getstate__(self) -> dict[str, Any]:
        # Graphs can be neither copied nor pickled.
        return {**self.__dict__, "_pass": None, "_again": None}

    @property
    def waits_for_error(self) -> bool:
        """Whether parts of the running pass still get their gradients with the error."""
        return self._runs_again or (self._pass is not None and self._pass.has_cuts)

    @property
    def is_connected(self) -> bool:
        """Whether the step is exact."""
        return self._again is None

    @property
    def _runs_again(self) -> bool:
        """Whether a checkpointed part of a pass that was not exact runs again.

        It has to save the tensors that it saved when it first ran.
        """
        ended = self._pass is None and self._again is not None
        return ended and current_backward_pass() is not None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a forward pass, of an exact step or of another."""
        self._exact.begin(args, kwargs)
        self._pass = self._again = None
        if not self._policy.is_exact_step():
            self._again = partial(self._detached_pass, watched=not self._delivered)
            self._pass = self._again()

    def _detached_pass(self, watched: bool) -> DetachedPass:
        watch = DeliveryWatch(self._note_delivery) if watched else None
        return DetachedPass(self._errors, self._copies, watch)

    def _note_delivery(self) -> None:
        self._delivered = True

    def pass_cut(
        self, name: str, interface: Interface, activation: Tensor, context: Context | None
    ) -> Tensor | None:
        """Return the activation detached, where the step is not exact."""
        running = self._pass
        if self._runs_again and self._again is not None:
            running = self._again()
        if running is None:
            return self._exact.pass_cut(name, interface, activation, context)
        assert isinstance(interface, BackwardInterface)
        return running.pass_cut(name, interface, activation, context)

    def pass_source(self, activation: Tensor) -> Tensor | None:
        """Have the gradient of this activation, the error, start the backward passes of parts."""
        if self._runs_again:
            return activation.detach().requires_grad_().clone()
        if self._pass is None:
            return self._exact.pass_source(activation)
        passed = self._pass.attach([activation], holds_error=True)[0]
        self._pass = None  # the gradient of this activation is needed, through all later layers
        return passed

    def end(self, output: Any) -> Any:
        """Return the output, whose gradient starts the backward passes of all parts."""
        running, self._pass = self._pass, None
        if running is None:
            return self._exact.end(output)
        # A pass that did not reach the last cut has no error, but is a step.
        holds_error = not self._errors.at_last_cut
        kind = type(output).__name__
        attach = partial(running.attach, holds_error=holds_error, kind=kind)
        # Behind frozen layers the detached activations leave an output without a gradient.
        return replace_differentiable(output, attach, or_all=running.has_cuts)

    def cancel(self) -> None:
        """Drop a forward pass that ended otherwise."""
        self._exact.cancel()
        self._pass = self._again = None


class _DetachedCut(NamedTuple):
    """A cut that a forward pass has reached.

    Attributes:
        name: Name of the cut.
        interface: Its interface.
        trigger: The activation, detached.
        watch: Tells whether later layers have changed it in place.
        context: The context of the forward pass.
    """

    name: str
    interface: BackwardInterface
    trigger: Tensor
    watch: InPlaceWatch
    context: Context | None


class DetachedPass:
    """One forward pass whose parts are not connected in the graph.

    Args:
        errors: Takes the error of the pass.
        copies: The cuts whose activation has to be copied.
        watch: Checks that the backward pass reaches the output; None where one has done so.
    """

    def __init__(
        self, errors: PassErrors, copies: TriggerCopies, watch: DeliveryWatch | None = None
    ) -> None:
        self._errors = errors
        self._copies = copies
        self._delivery = watch
        self._cuts: list[_DetachedCut] = []
        self._activations: list[Tensor] = []

    @property
    def has_cuts(self) -> bool:
        """Whether the pass has reached a cut whose part has not been connected yet."""
        return bool(self._cuts)

    def pass_cut(
        self, name: str, interface: BackwardInterface, activation: Tensor, context: Context | None
    ) -> Tensor:
        """Note an activation, and return it detached.

        Raises:
            DNIError: The part before the cut cannot learn alone.
        """
        passed = activation.detach()
        if self._delivery is not None:
            passed = self._delivery.begin_part(name, activation)
        watch = InPlaceWatch(activation if self._delivery is None else passed)
        trigger = watch.value.clone() if self._copies.needs_copy(name) else watch.value
        self._copies.mark_seen(name)
        self._cuts.append(_DetachedCut(name, interface, trigger, watch, context))
        self._activations.append(activation)
        return passed

    def attach(
        self, tensors: Sequence[Tensor], holds_error: bool, kind: str = "Tensor"
    ) -> Sequence[Tensor]:
        """Return the tensors, whose gradients start the backward passes of all parts so far.

        Args:
            tensors: The tensors.
            holds_error: Whether the gradient of a single one of them is the error.
            kind: Name of the class of what the network returns.

        Raises:
            SynthesizerError: The answer of a synthesizer that is given the error is wrong.
        """
        if self._delivery is not None:
            self._delivery.end(kind, tensors)
        if not tensors or not self._cuts:
            return tensors
        place = holds_error and len(tensors) == 1 and self._errors.place is not None
        if place:
            self._errors.expect(tensors[0])
        gradients = partial(self._gradients, self._cuts, self._errors.current, place)
        activations, self._cuts, self._activations = self._activations, [], []
        return attach_gradients(tensors, activations, gradients)

    def _gradients(
        self,
        cuts: Sequence[_DetachedCut],
        error: OutputError,
        holds_error: bool,
        given: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the synthetic gradients of the cuts, in a backward pass."""
        if self._delivery is not None:
            self._delivery.note()
        if holds_error:
            self._errors.give(error, given[0])
        found = []
        for cut in cuts:
            if cut.watch.changed:
                self._copies.mark_changed([cut.name])
            found.append(cut.interface.exchange(cut.trigger, cut.context, None, CutPolicy(), error))
        return found
