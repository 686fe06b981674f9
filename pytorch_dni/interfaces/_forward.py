"""The forward interface: activations cross a cut as predictions."""

from __future__ import annotations

import warnings

import torch
from torch import nn, Tensor

from ..context import Context, current_context
from ..errors import SynthesizerError
from ..synthesizers import DNI_Network
from ._crossing import cross
from ._predictions import Prediction
from ._unidirectional import UnidirectionalInterface


class ForwardInterface(UnidirectionalInterface):
    """Predicts an activation, the message, from the network's input, the trigger.

    Called on both inside a network, it hands on the prediction, so that what follows need not wait
    for what comes before; in the backward pass it learns from the activation::

        hidden = interface(self.first(input), input)
        return self.second(hidden)

    In ``eval()`` and under ``no_grad`` the call hands the message through.

    No gradient goes back through it: alone in a network it keeps the part in front from learning,
    and warns of that once. :class:`BidirectionalInterface` sends a synthetic gradient back.
    Arguments are those of :class:`UnidirectionalInterface`.

    Raises:
        SynthesizerError: The synthesizer has a loss to predict gradients by, and no message.

    Source: Jaderberg et al. 2017: synthetic inputs.
    """

    def __init__(self, synthesizer: nn.Module, **options: object) -> None:
        if getattr(synthesizer, "predicts", DNI_Network.predicts) == "loss":
            raise SynthesizerError(
                f"{type(self).__name__}: {type(synthesizer).__name__} gives gradients only; take a "
                "synthesizer that predicts activations, such as BasicSynthesizer"
            )
        super().__init__(synthesizer, **options)  # type: ignore[arg-type]
        self._warned = False

    def forward(self, message: Tensor, trigger: Tensor) -> Tensor:
        """The synthetic message, of the true one's shape and type.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
            SynthesizerError: The message is not of the shape that the synthesizer predicts.
        """
        if not (self.training and torch.is_grad_enabled()):
            return message
        if message.requires_grad and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.owner}: what computes this activation gets no gradient, and does not "
                "learn. Use a BidirectionalInterface, which sends a synthetic one back",
                stacklevel=3,
            )
        crossing = self.crossing(trigger)
        self.learner.discard()
        return cross(message.detach().requires_grad_(), crossing)

    def crossing(self, trigger: Tensor) -> MessageCrossing:
        """One prediction on its way.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
        """
        context = current_context()
        self.check(trigger, context)
        return MessageCrossing(self, trigger.detach(), context)


class MessageCrossing:
    """A prediction crosses in an activation's place, no gradient comes back.

    Attributes:
        message: The activation, once it has come.
    """

    message: Tensor

    def __init__(
        self, interface: ForwardInterface, trigger: Tensor, context: Context | None
    ) -> None:
        self._interface = interface
        self._trigger = trigger
        self._context = context
        self._prediction: Prediction | None = None
        self._steps = 0

    def value(self, activation: Tensor) -> Tensor:
        """The prediction."""
        with torch.no_grad():
            prediction = self._interface.predict(self._trigger, self._context)
        self._interface.fits(prediction.message, activation)
        self.message = activation.detach()
        self._prediction, self._steps = prediction, self._interface.learner.steps
        # A copy: what follows may change it in place.
        return prediction.message.to(activation.dtype, copy=True)

    def answer(self, grad: Tensor | None) -> Tensor | None:
        """Learn from the activation."""
        prediction = self._prediction
        if prediction is None or self._steps != self._interface.learner.steps:
            # The synthesizer has learned since, and what the prediction held of it is no more.
            with torch.no_grad():
                prediction = self._interface.predict(self._trigger, self._context)
        self._interface.learner.collect(self._interface.lesson(prediction, self.message))
        # A graph that is kept may be passed again.
        self._prediction = None
        return None
