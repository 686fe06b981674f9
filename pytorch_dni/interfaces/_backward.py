"""The backward interface: gradients cross a cut as predictions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Size, Tensor

from .._checks import check_number
from .._statistics import InterfaceStats
from ..context import Context, current_context
from ..errors import DNIError, SynthesizerError
from ..synthesizers import DNI_Network, LocalError_DNI, LocalLoss_DNI
from ..synthesizers.base import Hidden
from ._autograd import cross
from ._base import UnidirectionalInterface
from ._deferred import backward, check_graph
from ._error import OutputError, ScaledError
from ._gradient_crossing import CutPolicy, GradientCrossing
from ._modes import detached, synthesizer_mode
from ._network_runner import FeedbackRunner
from ._pending import PendingUpdate
from ._prediction import FromError, LossGradient, Prediction, RegressedMessage
from ._trial import check_answer, check_gradient, may_answer_wrongly


class BackwardInterface(UnidirectionalInterface):
    """Predicts the gradient with respect to an activation from that activation, the trigger.

    Called on an activation inside a network, it passes the activation on. In the backward pass it
    learns from the true gradient, and passes the synthetic one back in its place::

        hidden = interface(self.first(input))  # self.first learns from synthetic gradients
        return self.second(hidden)

    In ``eval()`` and under ``no_grad`` the call returns its input.

    By hand, :meth:`backward` sends a synthetic gradient into the graph of a tensor, and
    :meth:`make_trigger` detaches a tensor and learns from the gradient that comes to it. Arguments
    are those of :class:`UnidirectionalInterface`.

    Source: Jaderberg et al. 2017, section 2.1.
    """

    _tried = False  # whether the synthesizer has been asked, or needs not be

    @property
    def takes_error(self) -> bool:
        """Whether the synthesizer takes the error of the pass."""
        return self.runner.takes_error

    if TYPE_CHECKING:  # nn.Module's own may return anything

        def __call__(self, trigger: Tensor, error: OutputError | None = None) -> Tensor: ...

    def forward(self, trigger: Tensor, error: OutputError | None = None) -> Tensor:
        """Pass the trigger on, and cut its gradient.

        Args:
            trigger: The activation.
            error: The error of this forward pass, for synthesizers that take one.

        Raises:
            DNIError: The trigger needs no gradient: no earlier layer would learn.
            SynthesizerError: The synthesizer takes an error, and there is none.
            ContextError: The context of the scope is missing or does not fit.
        """
        if not self._is_learning():
            return trigger
        check_graph(self.owner, trigger)
        if error is not None and not isinstance(error, OutputError):
            raise DNIError(
                f"{self.owner}: error must be an OutputError, not {type(error).__name__}"
            )
        return cross(trigger, self._crossing(trigger, CutPolicy, error))

    def make_trigger(self, trigger: Tensor) -> Tensor:
        """Return the trigger detached; the gradient that comes to it trains the synthesizer.

        In ``eval()`` and under ``no_grad`` it returns the trigger itself.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
        """
        if not self._is_learning():
            return trigger
        crossing = self._crossing(trigger, partial(CutPolicy, part_learns=False), None)
        return cross(trigger.detach().requires_grad_(), crossing)

    def backward(self, trigger: Tensor, factor: float = 1.0) -> None:
        """Backpropagate ``factor`` times the synthetic gradient from a tensor.

        At once, or at the end of a :func:`defer_backward` scope. In ``eval()`` nothing happens.

        Raises:
            DNIError: The tensor has no graph.
            ContextError: The context of the scope is missing or does not fit.
            SynthesizerError: What the synthesizer predicts is not of the tensor's shape.
        """
        if not self.training:
            return
        check_graph(f"backward() of {self.owner}", trigger)
        check_number("factor", factor)
        gradient = self.receive(trigger)
        backward(trigger, gradient if factor == 1 else gradient * factor)

    def _is_learning(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def _crossing(
        self,
        trigger: Tensor,
        current_policy: Callable[[], CutPolicy],
        error: OutputError | None,
    ) -> GradientCrossing:
        context = current_context()
        self.check(trigger, context)
        if error is None:
            self.runner.check_needs_no_error()
        self.try_once(trigger, context, error)
        return GradientCrossing(self, trigger.detach(), context, current_policy, error)

    def exchange(
        self,
        trigger: Tensor,
        context: Context | None,
        true: Tensor | None,
        policy: CutPolicy,
        error: OutputError | None = None,
    ) -> Tensor | None:
        """In a backward pass, learn from the true gradient and return what is passed back.

        Args:
            trigger: The activation at the cut.
            context: The context of the forward pass.
            true: The true gradient; None where the part after the cut does not learn.
            policy: What passes the cut.
            error: The error of the pass, for synthesizers that take one. Where it is not known (the
                loss is not computed from the output), or does not fit, the true gradient is passed.

        Returns:
            ``(1 - lambda) * synthetic + lambda * true``, the BP(lambda) mix, or the synthetic
            gradient alone where no true one came; None where the part does not learn. The true one
            is bootstrapped from synthetic ones of later cuts: Jaderberg et al. 2017, section 2.1.
        """
        needs_no_prediction = not policy.part_learns or policy.bp_lambda == 1
        with synthesizer_mode(trigger.device.type):
            scaled = self._scaled(error, trigger) if self.runner.takes_error else None
            unknown = self.runner.takes_error and scaled is None
            if unknown or (true is None and needs_no_prediction):
                self.learner.mark_step()
                return true if policy.part_learns else None
            prediction = self.predict(trigger, context, scaled)
            self._learn_in_backward(prediction, true)
            if needs_no_prediction:
                return true if policy.part_learns else None
            synthetic = detached(prediction.message, trigger.dtype)
            if true is None or not policy.bp_lambda:
                return synthetic
            return torch.lerp(synthetic, true, policy.bp_lambda)

    def _scaled(self, error: OutputError | None, trigger: Tensor) -> ScaledError | None:
        """Return the error in units of its size; None where it is not known or does not fit."""
        value = None if error is None else error.value
        if error is None or value is None or not self.runner.fits(trigger, value):
            return None
        assert self.error_input is not None
        return self.error_input.scaled(*error.known(self.dtype, trigger.device))

    def _learn_in_backward(self, prediction: Prediction, true: Tensor | None) -> None:
        if true is not None:
            update: PendingUpdate | None = self.learn(prediction, true)
        else:
            update = prediction.learn_without_true()
        if update is None:
            self.learner.mark_step()
        else:
            self.learner.collect(update)

    @property
    def _is_local(self) -> bool:
        return self._predicts in ("loss", "local error")

    def check_values(self, context: Context) -> None:
        """Raise :class:`ContextError` where the values of a context do not suit the synthesizer."""
        if self._is_local and self.context_size is not None:
            context.target(self.context_size, self.moments.values, self.runner.owner)
        else:
            super().check_values(context)

    def check(self, trigger: Tensor, context: Context | None) -> None:
        """Raise :class:`DNIError` where the trigger or the context does not fit."""
        if context is not None and self.context_size is not None and self._is_local:
            self.check_trigger(trigger)
            target = context.target(self.context_size, trigger, self.runner.owner)
            if isinstance(self.synthesizer, LocalLoss_DNI):
                self.synthesizer.check_target(self._moved(trigger), target, self.owner)
        else:
            super().check(trigger, context)

    def try_once(
        self, trigger: Tensor, context: Context | None, error: OutputError | None = None
    ) -> None:
        """Before the first prediction is needed, ask a synthesizer whose answer may be wrong.

        Args:
            trigger: The activation, which was checked.
            context: The context, which was checked.
            error: The error of the pass. A synthesizer that takes it is asked when its shape is
                known, which is still in the forward pass.

        Raises:
            SynthesizerError: Its answer is wrong.
        """
        if self._tried:
            return
        self._tried = not may_answer_wrongly(self.runner)
        if self._tried:
            return
        ask = partial(self._try, trigger.detach().to(self.dtype), context)
        if not self.takes_error:
            ask()
        elif error is not None:
            error.try_with(ask)

    def _try(self, trigger: Tensor, context: Context | None, shape: Size | None = None) -> None:
        """Ask the synthesizer; zeros of that shape stand for an error that is not known yet."""
        error = None
        if shape is not None and self.error_input is not None:
            error = self.error_input.scaled(trigger.new_zeros(shape))
        check_answer(self.runner, self.owner, trigger, context, self.hidden, error)
        self._tried = True

    def _check_message(self, message: Tensor, trigger: Tensor) -> None:
        if message.shape != trigger.shape:
            raise SynthesizerError(
                f"{self.owner}: the message, a gradient of shape {tuple(message.shape)}, is not of "
                f"the trigger's shape {tuple(trigger.shape)}"
            )

    def ask(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        error: ScaledError | None = None,
    ) -> Prediction:
        """Predict from a given state of the synthesizer; the trigger has the synthesizer's type.

        Raises:
            SynthesizerError: What the synthesizer predicts is not of the trigger's shape.
        """
        if self._predicts == "loss":
            return self._ask_local_loss(trigger, context)
        if self._predicts == "local error":
            return self._ask_local_error(trigger, context)
        prediction = super().ask(trigger, context, hidden, error)
        if prediction.message.shape != trigger.shape:
            check_gradient(self.runner, self.owner, prediction.message, trigger)
        return prediction

    def _moved(self, trigger: Tensor) -> Tensor:
        """Return the trigger with its features last."""
        return trigger if self.feature_dim == -1 else trigger.movedim(self.feature_dim, -1)

    def _ask_local_error(self, trigger: Tensor, context: Context | None) -> Prediction:
        synthesizer, scale, error_input = self.synthesizer, self.scale, self.error_input
        assert isinstance(synthesizer, LocalError_DNI)
        assert context is not None
        assert self.context_size is not None
        assert scale is not None
        assert error_input is not None
        target = context.target(self.context_size, trigger, self.runner.owner)
        value, own = synthesizer.local_error(self._moved(trigger), target)
        error = error_input.scaled(value)
        runner = FeedbackRunner(synthesizer.feedback, None, self.feature_dim, self.owner)
        unit = scale.value
        run = runner.run(trigger, None, None, unit, error)
        again = partial(self._ask_local_error, trigger, context)
        shared = (unit, scale, self.moments, again)
        return RegressedMessage(run, *shared, own, FromError(error_input, error, trigger))

    def _ask_local_loss(self, trigger: Tensor, context: Context | None) -> Prediction:
        assert isinstance(self.synthesizer, DNI_Network)
        assert context is not None
        assert self.context_size is not None
        target = context.target(self.context_size, trigger, self.runner.owner)
        gain = self.moments.ratio
        gradient, grads = self.synthesizer.loss_gradient(self._moved(trigger), target, gain)
        if self.feature_dim != -1:
            gradient = gradient.movedim(-1, self.feature_dim)
        again = partial(self._ask_local_loss, trigger, context)
        return LossGradient(gradient, gain, self.moments, grads, again)

    def stats(self) -> InterfaceStats:
        """Return how well the interface predicts, over about the last hundred updates."""
        return self.moments.stats(self.moments.ratio.item() if self._predicts == "loss" else 1.0)
