"""The forward interface: activations cross a cut as predictions."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn, Tensor

from .._checks import check_tensor
from ..context import Context, current_context
from ..errors import DNIError, SynthesizerError
from ..synthesizers import DNI_Network
from ._autograd import cross
from ._base import UnidirectionalInterface
from ._prediction import Prediction

_OF_GRADIENTS = ("loss", "local error", "feedback")  # kinds that predict gradients alone


class ForwardInterface(UnidirectionalInterface):
    """Predicts an activation, the message, from the network's input, the trigger.

    Called on both inside a network, it passes the prediction on, so that later layers need not
    wait for earlier ones. In the backward pass it learns from the activation::

        hidden = interface(self.first(input), input)
        return self.second(hidden)

    In ``eval()`` and under ``no_grad`` the call returns the message itself.

    No gradient is passed back: alone in a network it keeps the earlier layers from learning, and
    warns of that once. :class:`BidirectionalInterface` sends a synthetic gradient back.
    Arguments are those of :class:`UnidirectionalInterface`.

    Raises:
        SynthesizerError: The synthesizer predicts gradients only, such as a local loss.

    Source: Jaderberg et al. 2017: synthetic inputs.
    """

    def __init__(self, synthesizer: nn.Module, **options: object) -> None:
        if getattr(synthesizer, "predicts", DNI_Network.predicts) in _OF_GRADIENTS:
            raise SynthesizerError(
                f"{type(self).__name__}: {type(synthesizer).__name__} predicts gradients only; "
                "take a synthesizer that predicts activations, such as BasicSynthesizer"
            )
        super().__init__(synthesizer, **options)  # type: ignore[arg-type]
        self._warned = False

    if TYPE_CHECKING:  # nn.Module's own may return anything

        def __call__(self, message: Tensor, trigger: Tensor) -> Tensor: ...

    def forward(self, message: Tensor, trigger: Tensor) -> Tensor:
        """Return the synthetic message, of the true one's shape and type.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
            SynthesizerError: The message is not of the shape that the synthesizer predicts.
        """
        if not (self.training and torch.is_grad_enabled()):
            return message
        check_tensor(f"{self.owner}: the message", message)
        if not message.is_floating_point():
            raise DNIError(f"{self.owner}: the message must be a floating-point tensor")
        if message.requires_grad and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.owner}: the layers that compute this activation get no gradient, and do "
                "not learn. Use a BidirectionalInterface, which sends a synthetic gradient back",
                stacklevel=3,
            )
        crossing = self.crossing(trigger)
        return cross(message.detach().requires_grad_(), crossing)

    def crossing(self, trigger: Tensor) -> MessageCrossing:
        """Return what passes the cut in one call.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
        """
        context = current_context()
        self.check(trigger, context)
        return MessageCrossing(self, trigger.detach(), context)


class MessageCrossing:
    """Passes a prediction on in an activation's place, and no gradient back.

    Args:
        interface: The interface at the cut.
        trigger: What the activation is predicted from.
        context: The context of the forward pass.

    Attributes:
        message: The activation, once it is known.
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

    def forward_message(self, activation: Tensor) -> Tensor:
        """Return the prediction."""
        with torch.no_grad():
            prediction = self._interface.predict(self._trigger, self._context)
        self._interface.check_predicted(prediction.message, activation)
        self.message = activation.detach()
        self._prediction, self._steps = prediction, self._interface.learner.steps
        # A copy, since later layers may change it in place.
        return prediction.message.to(activation.dtype, copy=True)

    def backward_message(self, grad: Tensor | None) -> Tensor | None:
        """Learn from the activation; no gradient is passed back."""
        prediction = self._prediction
        if prediction is None or self._steps != self._interface.learner.steps:
            # The synthesizer has learned since: the graph of that prediction is not valid any more.
            with torch.no_grad():
                prediction = self._interface.predict(self._trigger, self._context)
        self._interface.learner.collect(self._interface.learn(prediction, self.message))
        # A retained graph may be passed again.
        self._prediction = None
        return None
