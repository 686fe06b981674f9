"""Eager learning: each part's gradients as soon as it has run, so that its activations can go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge, GradientEdge, Node

from ._delivery import deliver, Delivery, Kept
from ._graph import Chain
from .context import Context
from .interfaces import BackwardInterface
from .interfaces._backward import Terms
from .interfaces._learner import Learner
from .interfaces._predictions import Lesson, Prediction


class Register(Protocol):
    """What is asked of the register of a network's cuts."""

    learner: Learner
    copied: set[str]

    def terms(self, name: str) -> Terms:
        """On which terms a gradient crosses a cut in this step."""


class Crossed:
    """A cut that a forward pass has come to.

    Args:
        name: Of the cut.
        interface: That stands there.
        activation: In the graph of the part that ends here.
        context: Of the forward pass.
        copy: Whether what comes behind changes the activation in place.
    """

    def __init__(
        self,
        name: str,
        interface: BackwardInterface,
        activation: Tensor,
        context: Context | None,
        copy: bool,
    ) -> None:
        self.name = name
        self.interface = interface
        self.edge: GradientEdge  # where the next part begins
        self.token: Tensor
        detached = activation.detach()
        self._trigger: Tensor | None = detached.clone() if copy else detached
        # The same memory under a version of its own: the synthesizer may have saved the trigger.
        self._value: Tensor | None = detached.new_empty(0).set_(detached)  # type: ignore[call-overload]
        self._context = context
        self._version = 0
        self._prediction: Prediction | None = None

    def cross(self, delivery: Delivery, token: Tensor | None) -> Tensor:
        """What goes on: the activation, behind which ``delivery`` waits for the backward pass."""
        assert self._value is not None
        value, self.token = deliver(delivery, self._value, token)
        self.edge = get_gradient_edge(value)
        self._value, self._version = value.detach(), value._version
        return value

    @torch.no_grad()
    def predict(self) -> Tensor:
        """The synthetic gradient."""
        assert self._trigger is not None
        self._prediction = self.interface.predict(self._trigger, self._context)
        return self._prediction.message.to(self._trigger.dtype)

    @torch.no_grad()
    def learn(self, true: Tensor | None, wanted: bool, copied: set[str]) -> Lesson | None:
        """The lesson of the gradient that has come, once; none where nothing is to be learned."""
        assert self._value is not None
        if self._value._version != self._version:
            copied.add(self.name)  # changed in place since
        lesson = None
        if true is not None or wanted:
            if self._prediction is None:
                self.predict()
            assert self._prediction is not None
            if true is None:
                lesson = self._prediction.learn_alone()
            else:
                lesson = self.interface.lesson(self._prediction, true)
        self._value = self._trigger = self._prediction = None
        return lesson


class Eager:
    """The forward pass that is under way, from cut to cut.

    Args:
        cuts: The register.

    Attributes:
        running: Whether there is one.
    """

    def __init__(self, cuts: Register) -> None:
        self._cuts = cuts
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        # Graphs can be neither copied nor pickled.
        return {"_cuts": self._cuts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._cuts = state["_cuts"]
        self._forget()

    def _forget(self) -> None:
        self.running = False
        self._chain = Chain()
        self._entrances: list[Tensor] = []
        self._last: Crossed | None = None

    def enter(self, inputs: list[Tensor]) -> None:
        """The network was called with these tensors."""
        self._forget()
        self._entrances = [tensor for tensor in inputs if tensor.grad_fn is not None]
        self._chain = Chain([cast(Node, tensor.grad_fn) for tensor in self._entrances])
        self.running = True

    def cut(
        self,
        name: str,
        interface: BackwardInterface,
        activation: Tensor,
        context: Context | None,
        copy: bool,
    ) -> Tensor:
        """A part has run: what goes on in its activation's place.

        Raises:
            DNIError: A cut does not separate the network.
        """
        before, wanted = self._last, self._cuts.terms(name).wanted
        reached = self._chain.part(name, [cast(Node, activation.grad_fn)])
        outside = [tensor for tensor in self._entrances if tensor.grad_fn in reached.ends]
        leaves = [*reached.leaves, *outside]
        crossed = Crossed(name, interface, activation, context, copy)
        grads: list[Tensor | None] = [None] * len(leaves)
        true = None
        self.running = False  # what a checkpoint runs again in between is no forward pass
        if wanted:
            edges = [] if before is None else [before.edge]
            inputs: list[Tensor | GradientEdge] = [*leaves, *edges]
            grads = _gradients(activation, inputs, crossed.predict())
            true = None if before is None else grads.pop()
        lesson = None if before is None else self._learn(before, true)
        delivery = Delivery(_Reach(self, crossed), leaves, grads, lesson)
        value = crossed.cross(delivery, None if before is None else before.token)
        self._chain.cut(name, crossed.edge.node)
        self._last = crossed
        self.running = True
        return value

    def leave(self, outputs: list[Tensor]) -> None:
        """The network has run; its last part learns in the backward pass.

        Raises:
            DNIError: A cut does not separate the network.
        """
        nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
        try:
            if nodes:
                self._chain.part("", nodes)
        finally:
            self._forget()

    def _learn(self, cut: Crossed, true: Tensor | None) -> Kept | None:
        with Kept(cut.interface.synthesizer) as kept:
            lesson = cut.learn(true, self._cuts.terms(cut.name).wanted, self._cuts.copied)
            if lesson is None:
                return None
            learner = self._cuts.learner
            learner.backpropagate([lesson])
            # To give it once more, activation and gradient have to stay.
            again = lesson.again if learner.repeats > 1 else None
            kept.lesson = Lesson(square=lesson.square, again=again)
        return kept

    def reach(self, cut: Crossed, true: Tensor | None, last: bool, lesson: Kept | None) -> None:
        """In the backward pass, which has come to a cut: what was learned counts now.

        Args:
            cut: The cut.
            true: The gradient that has come.
            last: Whether from the last part, which learns only now.
            lesson: What the part in front of the cut has taught the synthesizer before it.
        """
        learner = self._cuts.learner
        if last:
            wanted = self._cuts.terms(cut.name).wanted
            learner.collect(cut.learn(true, wanted, self._cuts.copied))
        learner.collect(None if lesson is None else lesson.give())


class _Reach:
    def __init__(self, eager: Eager, cut: Crossed) -> None:
        self._eager = eager
        self._cut = cut

    def __call__(self, true: Tensor | None, last: bool, lesson: Kept | None) -> None:
        self._eager.reach(self._cut, true, last, lesson)


def _gradients(
    output: Tensor, inputs: Sequence[Tensor | GradientEdge], grad: Tensor
) -> list[Tensor | None]:
    """Backpropagate through a part; hooks of leaves wait for what is handed over later."""
    hooked = []
    for leaf in inputs:
        hooks = leaf._backward_hooks if isinstance(leaf, Tensor) and leaf.is_leaf else None
        if hooks:
            hooked.append((hooks, dict(hooks)))
            hooks.clear()
    try:
        with torch.autocast(output.device.type, enabled=False):
            asked = cast("Sequence[Tensor]", inputs)
            return [*torch.autograd.grad([output], asked, [grad], allow_unused=True)]
    finally:
        for hooks, kept in hooked:
            hooks.update(kept)
