"""The bidirectional interface: activations and gradients cross a cut as predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TYPE_CHECKING

import torch
from torch import nn, Tensor

from .._saved import LoadedWhole
from .._statistics import InterfaceStats
from ..context import Context, current_context
from ._autograd import cross
from ._backward import BackwardInterface
from ._deferred import backward as propagate
from ._deferred import check_graph
from ._forward import ForwardInterface, MessageCrossing
from ._gradient_crossing import CutPolicy
from ._learner import Learner, Trained


class BidirectionalInterface(LoadedWhole):
    """Predicts the activation for later layers, and the gradient for earlier layers.

    Called inside a network, it does both at one point, and no part waits for another::

        hidden = interface(self.first(input), input)
        return self.second(hidden)

    In ``eval()`` and under ``no_grad`` the call returns the message itself. Where the two parts run
    in different processes, each with a copy of the interface, the earlier part calls :meth:`send`
    and the later part :meth:`receive`, and nothing else passes between them. The forward
    synthesizer learns in the earlier part and the backward one in the later part, so that their
    states have to be synchronised from time to time.

    Args:
        forward: Synthesizer of activations, or a :class:`ForwardInterface`.
        backward: Synthesizer of gradients, or a :class:`BackwardInterface`.
        options: Options of the interfaces made for synthesizers: see
            :class:`UnidirectionalInterface`.

    Raises:
        SynthesizerError: An argument is wrong.

    Source: Jaderberg et al. 2017: complete unlock, by synthetic inputs and gradients.
    """

    def __init__(self, forward: nn.Module, backward: nn.Module, **options: Any) -> None:
        super().__init__()
        if not isinstance(forward, ForwardInterface):
            forward = ForwardInterface(forward, **options)
        if not isinstance(backward, BackwardInterface):
            backward = BackwardInterface(backward, **options)
        self.forward_interface = forward
        self.backward_interface = backward

    if TYPE_CHECKING:  # nn.Module's own may return anything

        def __call__(self, message: Tensor, trigger: Tensor) -> Tensor: ...

    def forward(self, message: Tensor, trigger: Tensor) -> Tensor:
        """Return the synthetic activation; in the backward pass, send a synthetic gradient.

        Args:
            message: The true activation.
            trigger: What it is predicted from: the network's input.

        Raises:
            DNIError: The message needs no gradient: no earlier layer would learn.
            ContextError: The context of the scope is missing or does not fit.
            SynthesizerError: What a synthesizer predicts is not of the message's shape.
        """
        if not (self.training and torch.is_grad_enabled()):
            return message
        check_graph(self.owner, message)
        context = current_context()
        self.check(message, trigger, context)
        return cross(message, ExchangeCrossing(self, trigger, context, CutPolicy))

    def check(self, message: Tensor, trigger: Tensor, context: Context | None) -> None:
        """Raise :class:`DNIError` where a trigger or the context does not fit."""
        self.forward_interface.check(trigger, context)
        self.backward_interface.check(message, context)

    def check_values(self, context: Context) -> None:
        """Raise :class:`ContextError` where the values of a context do not suit a synthesizer."""
        self.check_takes(context)
        for interface in (self.forward_interface, self.backward_interface):
            if interface.runner.takes_context:
                interface.check_values(context)

    def check_takes(self, context: Context | None) -> None:
        """Raise :class:`ContextError` where a context is given and neither synthesizer takes it."""
        if not self.forward_interface.runner.takes_context:
            self.backward_interface.check_takes(context)

    def receive(self, trigger: Tensor) -> Tensor:
        """In the later part, return the synthetic activation; its gradient is learned from.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
        """
        return self.backward_interface.make_trigger(self.forward_interface.receive(trigger))

    def send(self, message: Tensor, trigger: Tensor) -> None:
        """In the earlier part, learn from the activation and backpropagate a synthetic gradient.

        The layers that compute the message have their gradients when this returns, or, in a
        :func:`defer_backward` scope, when that ends. In ``eval()`` nothing happens.

        Args:
            message: The activation.
            trigger: What it is predicted from, the same as in the later part.

        Raises:
            DNIError: The message has no graph: no earlier layer would learn.
            ContextError: The context of the scope is missing or does not fit.
            SynthesizerError: What a synthesizer predicts is not of the message's shape.
        """
        if not self.training:
            return
        check_graph(f"send() of {self.owner}", message)
        gradient = self.backward_interface.receive(message)
        self.forward_interface.send(message, trigger)
        propagate(message, gradient)

    def trained(self) -> list[Trained]:
        """Return the modules that a learner trains, each with its default learning rate."""
        return [*self.forward_interface.trained(), *self.backward_interface.trained()]

    def set_learner(self, learner: Learner) -> None:
        """Have another learner train both synthesizers, which has them added already."""
        self.forward_interface.set_learner(learner)
        self.backward_interface.set_learner(learner)

    @property
    def owner(self) -> str:
        """What error messages call the interface."""
        return self.backward_interface.owner

    def measure_examples(self, measures: bool) -> None:
        """Have :meth:`stats` give the cosine similarity of each example of a lesson, or stop it."""
        self.backward_interface.measure_examples(measures)

    def stats(self) -> InterfaceStats:
        """Return how well gradients are predicted; ``forward_interface.stats()``: activations."""
        return self.backward_interface.stats()


class ExchangeCrossing(MessageCrossing):
    """Passes a predicted activation on, and a predicted gradient back.

    Args:
        interface: The interface at the cut.
        trigger: What the activation is predicted from.
        context: The context of the forward pass.
        current_policy: Called in the backward pass; returns what passes the cut.
    """

    def __init__(
        self,
        interface: BidirectionalInterface,
        trigger: Tensor,
        context: Context | None,
        current_policy: Callable[[], CutPolicy],
    ) -> None:
        super().__init__(interface.forward_interface, trigger.detach(), context)
        self._backward = interface.backward_interface
        self._current_policy = current_policy

    def backward_message(self, grad: Tensor | None) -> Tensor | None:
        """Learn from the activation and from the true gradient; return the synthetic gradient."""
        policy = self._current_policy()
        if policy.part_learns:
            super().backward_message(grad)
        # The gradient that came belongs to the predicted activation, but it is learned, and the
        # synthetic one predicted, at the true activation, which parts in different processes could
        # not do: 97.7 and 97.6 % against 97.5 and 97.5 % on MNIST, and one prediction less.
        return self._backward.exchange(self.message, self._context, grad, policy)
