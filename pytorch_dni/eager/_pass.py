"""One forward pass under eager learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from .._torch import hooks_suspended, run_backward
from ..context import Context
from ..cuts import TriggerCopies, UpdatePolicy
from ..interfaces import BackwardInterface
from ..interfaces._modes import synthesizer_mode
from ..interfaces._pass_learner import PassLearner
from ..placement import PartChain
from ._closed import close_graph
from ._cut import EagerCut
from ._delivery import GradientDelivery


class EagerPass:
    """The parts of a forward pass, each of which learns as soon as the next has run.

    Args:
        inputs: Floating-point inputs of the network.
        learner: Trains the synthesizers.
        policy: What passes each cut.
        copies: The cuts whose activation has to be copied.
        closes: Whether a backward pass through a part that has learned raises an error of its own.
        note: Called when a backward pass has reached the output.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        learner: PassLearner,
        policy: UpdatePolicy,
        copies: TriggerCopies,
        closes: bool,
        note: Callable[[], None],
    ) -> None:
        self._learner = learner
        self._policy = policy
        self._copies = copies
        self._closes = closes
        self._entrances = [tensor for tensor in inputs if tensor.grad_fn is not None]
        self._chain = PartChain([cast(Node, tensor.grad_fn) for tensor in self._entrances])
        self._delivery = GradientDelivery(learner, note)
        # The cut before, and the edge of the graph at which the part after it begins.
        self._before: tuple[EagerCut, GradientEdge] | None = None
        self._anchor: Tensor | None = None

    def pass_cut(
        self,
        name: str,
        interface: BackwardInterface,
        activation: Tensor,
        context: Context | None,
        copy: bool,
    ) -> Tensor:
        """Compute the gradients of the part that ends here, and return the activation detached.

        Args:
            name: Name of the cut.
            interface: The interface at the cut.
            activation: The activation.
            context: The context of the forward pass.
            copy: Whether later layers change the activation in place.

        Raises:
            DNIError: The cut before does not separate the network.
        """
        reached = self._chain.end_part(name, [cast(Node, activation.grad_fn)])
        outside = [tensor for tensor in self._entrances if tensor.grad_fn in reached.ends]
        leaves = [*reached.leaves, *outside]
        trigger = activation.detach()
        trigger = trigger.clone() if copy else trigger
        shared = (self._learner, self._policy, self._copies)
        cut = EagerCut(name, interface, trigger, context, *shared)
        # The same mode as in a backward pass, which is outside of the scope of autocast.
        with synthesizer_mode(activation.device.type):
            self._learn(cut, activation, leaves)
        if self._closes:
            close_graph(name, reached.nodes)
        self._anchor = leaves[0] if self._anchor is None else self._anchor
        passed = cut.detach(activation, self._anchor)
        edge = GradientEdge(cast(Node, passed.grad_fn), passed.output_nr)
        self._chain.begin_part(name, edge.node)
        self._before = cut, edge
        return passed

    def _learn(self, cut: EagerCut, activation: Tensor, leaves: list[Tensor]) -> None:
        """Compute the gradients of the part that ends at a cut, and what the cut before learns."""
        before, true = self._before, None
        learns = self._policy.part_learns(cut.name)
        if learns:
            edges = [before[1]] if before is not None and before[0].needs_true else []
            grads = _gradients(activation, cut.predict(), [*leaves, *edges])
            true = grads.pop() if edges else None
            self._delivery.add_grads(leaves, grads)
        if before is not None:
            update = before[0].learn(true, not_asked=learns and not before[0].needs_true)
            if update is not None:
                weights = before[0].interface.weights
                self._delivery.add_update(update.with_parameter_grads(weights))

    def end(self, kind: str, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the network's outputs, in whose backward pass the last part learns.

        Args:
            kind: Name of the class of what the network returns.
            outputs: The tensors in it that require a gradient.

        Raises:
            DNIError: A cut does not separate the network.
        """
        if self._before is None:
            return outputs
        last = self._before[0]
        last.wait_for_backward(partial(self._delivery.check_delivered, last.name, kind))
        if not outputs:
            return outputs
        # A parameter that is returned as it is has no node.
        made = [output.grad_fn for output in outputs if output.grad_fn is not None]
        self._chain.end_part(None, made)
        return self._delivery.attach(outputs)


def _gradients(
    activation: Tensor, synthetic: Tensor, inputs: Sequence[Tensor | GradientEdge]
) -> list[Tensor | None]:
    """Backpropagate through a part; hooks of tensors run when the gradients are delivered."""
    if not inputs:
        return []
    with hooks_suspended(inputs):
        return run_backward(activation, synthetic, inputs)
