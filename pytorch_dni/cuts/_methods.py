"""How an activation and its gradient pass a cut of a wrapped network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from .._torch import is_forward_differentiated
from .._tree import map_floating
from ..context import Context
from ..errors import DNIError
from ..interfaces import BidirectionalInterface
from ..interfaces._autograd import cross, first_order, is_crossed, is_detached_at_cut
from ..interfaces._bidirectional import ExchangeCrossing
from ..interfaces._error import OutputError
from ..interfaces._gradient_crossing import CutPolicy, GradientCrossing
from ..interfaces._learner import Learner
from ..interfaces._pass_learner import PassLearner
from ._copies import InPlaceWatch, TriggerCopies
from ._errors import PassErrors
from ._factory import Interface
from ._inputs import ForwardInputs
from ._interface_set import InterfaceSet
from ._policy import UpdatePolicy

#: Given the trigger, the context and the true gradient, returns what is passed back; None leaves
#: the true gradient in place.
Exchange = Callable[[Tensor, Context | None, Tensor], Tensor | None]


def check_backward_mode(kind: str) -> None:
    """Raise where forward-mode differentiation runs a forward pass.

    Args:
        kind: Name of the network's class.

    Raises:
        DNIError: It does.
    """
    if is_forward_differentiated():
        raise DNIError(
            f"forward-mode differentiation calls {kind} in training, but no tangent passes a cut "
            "with eager, exact_every, update_probability or unlock='full': call the network in "
            "eval(), or leave those options out"
        )


class CutMethod(ABC):
    """One way to pass activations and gradients across cuts.

    The register calls it as a forward pass goes: :meth:`begin`, then :meth:`pass_cut` at each cut,
    then :meth:`end`.

    Attributes:
        needs_whole_pass: Whether :meth:`begin` and :meth:`end` do anything; if not, the network
            itself gets no hook.
        detaches: Whether it cuts the graph: no gradient passes through a module with a cut.
    """

    needs_whole_pass: ClassVar[bool] = True
    detaches: ClassVar[bool] = False

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: B027
        """Begin a forward pass of training with these arguments."""

    @property
    def waits_for_error(self) -> bool:
        """Whether parts of the running pass still get their gradients with the error."""
        return False

    @property
    def is_connected(self) -> bool:
        """Whether the parts of the running pass are connected in the graph."""
        return True

    @abstractmethod
    def pass_cut(
        self, name: str, interface: Interface, activation: Tensor, context: Context | None
    ) -> Tensor | None:
        """Pass an activation across a cut.

        Returns:
            The tensor that is passed on in its place; None where it is passed on as it is.
        """

    @abstractmethod
    def pass_source(self, activation: Tensor) -> Tensor | None:
        """Pass the activation at the last cut, whose gradient is the error.

        Returns:
            As :meth:`pass_cut`.
        """

    def end(self, output: Any) -> Any:
        """End a forward pass of training.

        Returns:
            What the network returns in the place of its output.
        """
        return output

    def cancel(self) -> None:  # noqa: B027
        """Drop a forward pass that ended otherwise, if there is one."""


class HookCuts(CutMethod):
    """The default: a tensor hook on each activation, whose gradient it replaces.

    The activation is left untouched, so that later layers may change it in place.

    Args:
        interfaces: The interfaces at the cuts.
        copies: The cuts whose activation has to be copied.
        policy: What passes each cut.
        errors: Takes the error of each pass.
    """

    needs_whole_pass: ClassVar[bool] = False

    def __init__(
        self,
        interfaces: InterfaceSet,
        copies: TriggerCopies,
        policy: UpdatePolicy,
        errors: PassErrors,
    ) -> None:
        self._errors = errors
        self._interfaces = interfaces
        self._copies = copies
        self._policy = policy

    def pass_cut(
        self, name: str, interface: Interface, activation: Tensor, context: Context | None
    ) -> None:
        """Register a hook on the activation."""
        copy = self._copies.needs_copy(name)
        self._copies.mark_seen(name)
        exchange = partial(self.exchange, interface, self._errors.current)
        self.add_hook([name], activation, context, copy, exchange)

    def pass_source(self, activation: Tensor) -> None:
        """Take the gradient of the activation for the error."""
        self._errors.watch_activation(activation)

    def end(self, output: Any) -> Any:
        """Take the gradient of the output for the error, where that is the place."""
        self._errors.watch_output(output)
        return output

    def add_hook(
        self,
        names: Iterable[str],
        activation: Tensor,
        context: Context | None,
        copy: bool,
        exchange: Exchange,
    ) -> None:
        """Register a hook on an activation; ``exchange`` is called with its gradient."""
        changed = partial(self._copies.mark_changed, names)
        activation.register_hook(GradientHook(activation, context, copy, exchange, changed))

    def exchange(
        self,
        interface: Interface | None,
        error: OutputError,
        trigger: Tensor,
        context: Context | None,
        grad: Tensor,
    ) -> Tensor | None:
        """Learn from the true gradient, and return the synthetic one.

        The interface is that of the forward pass, even where a checkpoint has been loaded since.
        Without an interface, or where the network has been unwrapped, the true gradient stays.
        """
        if interface is None or not self._interfaces.by_name:
            return None
        if isinstance(interface, BidirectionalInterface):
            interface = interface.backward_interface
        policy = CutPolicy(self._policy.current_lambda(), part_learns=True)
        passed = interface.exchange(trigger, context, grad, policy, error)
        return passed if passed is grad else first_order(passed)


class GradientHook:
    """Tensor hook on an activation: replaces the true gradient by the synthetic one.

    Args:
        activation: The activation.
        context: The context of the forward pass.
        copy: Whether the trigger is kept as a copy.
        exchange: Called with the true gradient.
        on_change: Called where the activation has been changed in place.
    """

    def __init__(
        self,
        activation: Tensor,
        context: Context | None,
        copy: bool,
        exchange: Exchange,
        on_change: Callable[[], None],
    ) -> None:
        self._watch = InPlaceWatch(activation)
        self._trigger = self._watch.value.clone() if copy else self._watch.value
        self._context = context
        self._exchange = exchange
        self._on_change = on_change

    def __call__(self, grad: Tensor | None) -> Tensor | None:
        if grad is None:
            # The node was reached through another output of the module; no gradient may be given.
            return None
        if self._watch.changed:
            self._on_change()
        return self._exchange(self._trigger, self._context, grad)


class FunctionCuts(CutMethod):
    """An autograd function at each cut: for sparse updates and for the full unlock.

    With sparse updates a part may get no gradient at all, which a hook cannot express; with the
    full unlock another activation is passed on.

    Args:
        inputs: The inputs of the forward pass.
        policy: What passes each cut.
        learner: Counts the steps.
        errors: Takes the error of each pass.
    """

    def __init__(
        self, inputs: ForwardInputs, policy: UpdatePolicy, learner: Learner, errors: PassErrors
    ) -> None:
        self._inputs = inputs
        self._errors = errors
        self._policy = policy
        self._learner = learner

    def pass_cut(
        self, name: str, interface: Interface, activation: Tensor, context: Context | None
    ) -> Tensor:
        """Return the activation, or its prediction, behind an autograd function."""
        current_policy = partial(self._policy.at_cut, name)
        if isinstance(interface, BidirectionalInterface):
            trigger = self._inputs.trigger()
            return cross(activation, ExchangeCrossing(interface, trigger, context, current_policy))
        crossing = GradientCrossing(
            interface, activation.detach(), context, current_policy, self._errors.current
        )
        return cross(activation, crossing)

    def pass_source(self, activation: Tensor) -> None:
        """Take the gradient of the activation for the error."""
        self._errors.watch_activation(activation)

    def end(self, output: Any) -> Any:
        """Have the last part learn only in its steps; the error is known in all of them."""
        if self._policy.schedule.sparse:
            output = map_floating(output, self._gate)
        self._errors.watch_output(output)
        return output

    def _gate(self, tensor: Tensor) -> Tensor:
        # There are no layers after a cut at the network's output.
        if not tensor.requires_grad or is_crossed(tensor) or is_detached_at_cut(tensor):
            return tensor
        return cross(tensor, OutputGate(self._policy, PassLearner(self._learner)))


class OutputGate:
    """Passes the network's output on; its gradient only where the last part learns.

    Args:
        policy: Says whether it does.
        learner: Counts the steps.
    """

    def __init__(self, policy: UpdatePolicy, learner: PassLearner) -> None:
        self._policy = policy
        self._learner = learner

    def forward_message(self, activation: Tensor) -> Tensor:
        """Return a copy of the output."""
        return activation.clone()

    def backward_message(self, grad: Tensor | None) -> Tensor | None:
        """Return the gradient, or None."""
        # The step counts also where no cut is reached in it.
        self._learner.mark_step()
        return grad if self._policy.last_part_learns() else None
