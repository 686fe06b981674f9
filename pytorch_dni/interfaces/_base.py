"""The base class of interfaces: a synthesizer, the unit it predicts in, and who trains it."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn, Tensor

from .._checks import check_tensor, check_whole
from .._normalization import RunningScale, Scalar
from .._statistics import InterfaceStats, RunningMoments
from .._tree import map_floating
from ..context import Context, current_context
from ..errors import DNIError, SynthesizerError
from ..synthesizers import DNI_Network
from ..synthesizers.base import Hidden
from ._deferred import current_scope
from ._error import ErrorInput, ScaledError
from ._learner import Learner, Trained
from ._modes import detached, synthesizer_mode
from ._optimizer import OptimizerFactory, OptimizerName
from ._pending import PendingUpdate, Undo
from ._prediction import FromError, Prediction, RegressedMessage
from ._runners import check_synthesizer, runner
from ._stored import StoredInterface


class UnidirectionalInterface(StoredInterface):
    """Predicts a message of one direction from a trigger; base class of the interfaces.

    The synthesizer is regressed (mean squared error over all elements) to the message divided by
    that message's running root mean square. Its output is multiplied by the same number before
    use. So one learning rate fits messages of any size.

    Args:
        synthesizer: A :class:`DNI_Network`, or any module with ``forward(trigger, context)`` such
            as :class:`BasicSynthesizer`.
        optim: Trains the synthesizer in the backward pass, as the wrapper does: ``"adam"``,
            ``"adamw"``, ``"rmsprop"``, ``"sgd"``, a class, or a callable ``(parameters, lr=...) ->
            Optimizer``. Its parameters are then not among :meth:`parameters`, but in
            :meth:`state_dict`. None leaves them to the user's optimizer: they are among
            :meth:`parameters`, and get their ``grad`` (of the loss in normalised units) together
            with those of the network.
        lr: Learning rate; None takes the synthesizer's own default.
        context_size: Width of the context, for labels the number of classes; None takes the
            synthesizer's ``context_dim``, if it has one.
        feature_dim: The trigger's dimension of features or channels; None takes the synthesizer's
            ``feature_dim``, or else the last.
        name: What error messages call the interface.
        like: A tensor of the wanted type and device, for synthesizers without parameters.

    Raises:
        SynthesizerError: An argument is wrong.
    """

    def __init__(
        self,
        synthesizer: nn.Module,
        *,
        optim: OptimizerName | OptimizerFactory | None = "adam",
        lr: float | None = None,
        context_size: int | None = None,
        feature_dim: int | None = None,
        name: str | None = None,
        like: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_synthesizer(synthesizer, type(self).__name__)
        _check_options(context_size, feature_dim, name, like)
        self.learner = Learner(optim, lr)
        if optim is None:
            self.synthesizer = synthesizer
        else:
            # It is no submodule: the user's optimizer must not train its parameters too.
            object.__setattr__(self, "synthesizer", synthesizer.train())
        self.trains_itself = optim is not None
        self._predicts: str = getattr(synthesizer, "predicts", DNI_Network.predicts)
        # A list, since looking parameters up through modules takes longer than a small kernel.
        self.weights: list[nn.Parameter] = [*synthesizer.parameters()]
        self.name = name
        self.context_size: int | None = (
            getattr(synthesizer, "context_dim", None) if context_size is None else context_size
        )
        dim = getattr(synthesizer, "feature_dim", -1) if feature_dim is None else feature_dim
        self.feature_dim: int = dim
        self.hidden: Hidden = None
        self.runner = runner(synthesizer, self.context_size, self.feature_dim, self.owner)
        like = next(synthesizer.parameters(), torch.zeros(()) if like is None else like)
        self.dtype = torch.promote_types(like.dtype, torch.float32)
        like = torch.zeros((), dtype=self.dtype, device=like.device)
        self.moments = RunningMoments(like)
        self.scale = self._make_scale(like)
        decays = self.runner.error_input == "feedback"
        self.error_input = ErrorInput(like, decays) if self.runner.error_input else None
        self.learner.add(self.trained(), name or "")

    def _make_scale(self, like: Tensor) -> RunningScale | None:
        normalize = getattr(self.synthesizer, "normalize_target", DNI_Network.normalize_target)
        return RunningScale(like) if normalize else None

    @property
    def owner(self) -> str:
        """What error messages call the interface."""
        kind = f"{type(self).__name__} with {type(self.synthesizer).__name__}"
        return kind if self.name is None else f"interface {self.name!r}"

    def trained(self) -> list[Trained]:
        """Return the modules that a learner trains, each with its default learning rate."""
        if isinstance(self.synthesizer, DNI_Network):
            return self.synthesizer.trained()
        return [(self.synthesizer, DNI_Network.default_lr)]

    def set_learner(self, learner: Learner) -> None:
        """Have another learner train the synthesizer, which has it added already."""
        self.learner = learner

    def receive(self, trigger: Tensor) -> Tensor:
        """Predict the message for a trigger: detached, in the trigger's type.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
        """
        context = current_context()
        self.check(trigger, context)
        with torch.no_grad():
            return self.predict(trigger, context).message.to(trigger.dtype)

    def send(self, message: Tensor, trigger: Tensor) -> None:
        """Train the synthesizer to predict a message from a trigger, at once.

        In a :func:`defer_backward` scope, at its end. In ``eval()`` nothing is learned.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
            SynthesizerError: The message is not of the shape that the synthesizer predicts.
        """
        if not self.training:
            return
        context = current_context()
        self.check(trigger, context)
        check_tensor(f"{self.owner}: the message", message)
        message = message.detach()
        self._check_message(message, trigger)
        with torch.no_grad():
            prediction = self.predict(trigger, context)
            self.check_predicted(prediction.message, message)

        def update() -> PendingUpdate:
            return self.learn(prediction, message)

        scope = current_scope()
        if scope is None:
            self.learner.train([update()])
        else:
            scope.add_update(self.learner, update)

    def _check_message(self, message: Tensor, trigger: Tensor) -> None:
        """Check a message whose shape is known before the synthesizer predicts."""

    def check_predicted(self, synthetic: Tensor, message: Tensor) -> None:
        """Raise :class:`SynthesizerError` where a message is not of the predicted one's shape."""
        if synthetic.shape != message.shape:
            raise SynthesizerError(
                f"{self.owner}: the synthesizer ({type(self.synthesizer).__name__}) predicts shape "
                f"{tuple(synthetic.shape)} for a message of shape {tuple(message.shape)}: make the "
                "features of its output those of the message"
            )

    def learn(
        self, prediction: Prediction, message: Tensor, valid_mask: Tensor | None = None
    ) -> PendingUpdate:
        """Compute what the true message of a prediction teaches; nothing changes yet.

        Args:
            prediction: The prediction.
            message: The true message.
            valid_mask: Samples, ``(batch,)``, that count; None for all.
        """
        message = detached(message, self.dtype)
        # A backward pass may run in the scope of the forward pass, too.
        with synthesizer_mode(message.device.type):
            update = prediction.learn(message, valid_mask)
        if self.hidden is not prediction.hidden:
            # What is not finite would stay in the state, also after its lesson was left out.
            hidden = map_floating(prediction.hidden, _finite)
            update = update.also(partial(self._set_hidden, hidden))
        if self.learner.repeats == 1:
            return update
        return update.repeated_by(partial(prediction.learn_again, message, valid_mask))

    def _set_hidden(self, hidden: Hidden) -> Undo:
        before, self.hidden = self.hidden, hidden
        return partial(setattr, self, "hidden", before)

    def check(self, trigger: Tensor, context: Context | None) -> None:
        """Raise :class:`DNIError` where the trigger or the context does not fit."""
        self.check_trigger(trigger)
        if self.runner.checks:
            self.runner.check(trigger.detach().to(self.dtype), context)

    def check_trigger(self, trigger: Tensor) -> None:
        """Raise :class:`DNIError` where this is no trigger for the synthesizer."""
        if not isinstance(trigger, Tensor) or not trigger.is_floating_point():
            kind = trigger.dtype if isinstance(trigger, Tensor) else type(trigger).__name__
            raise DNIError(f"{self.owner}: a trigger must be a floating-point tensor, not {kind}")
        if trigger.layout != torch.strided:
            raise DNIError(f"{self.owner}: a trigger must be a dense tensor, not {trigger.layout}")
        if not -trigger.dim() <= self.feature_dim < trigger.dim():
            raise DNIError(
                f"{self.owner}: a trigger of shape {tuple(trigger.shape)} has no dimension "
                f"{self.feature_dim}, that of its features: give another feature_dim"
            )
        width = self.runner.width(trigger)
        if width is not None and trigger.shape[self.feature_dim] != width:
            raise SynthesizerError(
                f"{self.owner}: the synthesizer ({type(self.synthesizer).__name__}) takes {width} "
                f"features in dimension {self.feature_dim}, but the trigger has shape "
                f"{tuple(trigger.shape)}: give it the right input_size"
            )

    def check_values(self, context: Context) -> None:
        """Raise :class:`ContextError` where the values of a context do not suit the synthesizer.

        They are known before the activation is; its shape is checked by :meth:`check`.
        """
        self.check_takes(context)
        if self.context_size is not None:
            context.features(self.context_size, self.moments.values, self.runner.owner)

    def check_takes(self, context: Context | None) -> None:
        """Raise :class:`ContextError` where the interface is given a context without use."""
        self.runner.check_takes(context)

    def predict(
        self, trigger: Tensor, context: Context | None = None, error: ScaledError | None = None
    ) -> Prediction:
        """Predict the message for a trigger, in at least float32; call under ``no_grad``.

        Raises:
            ContextError: The context is missing or of a wrong shape.
        """
        if context is None and self.context_size is not None:
            self.check(trigger, context)
        with synthesizer_mode(trigger.device.type):
            return self.ask(detached(trigger, self.dtype), context, self.hidden, error)

    def ask(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        error: ScaledError | None = None,
    ) -> Prediction:
        """Predict from a given state of the synthesizer; the trigger has the synthesizer's type."""
        unit: Scalar = 1.0 if self.scale is None else self.scale.value
        if error is not None and self.scale is not None and not self.scale.count:
            unit = error.unit  # a map that starts at the identity passes the first error on
        run = self.runner.run(trigger, context, hidden, unit, error)
        given = None
        if error is not None and self.error_input is not None:
            given = FromError(self.error_input, error, trigger)
        again = partial(self.ask, trigger, context, hidden, error)
        return RegressedMessage(run, unit, self.scale, self.moments, again, given=given)

    def measure_examples(self, measures: bool) -> None:
        """Have :meth:`stats` give the cosine similarity of each example of a lesson, or stop it."""
        self.moments.measure_examples(measures)

    def stats(self) -> InterfaceStats:
        """Return how well the interface predicts, over about the last hundred updates."""
        return self.moments.stats()

    def extra_repr(self) -> str:
        """Describe for ``print`` what is not among the submodules."""
        name = [] if self.name is None else [f"name={self.name!r}"]
        hidden = [f"synthesizer={type(self.synthesizer).__name__}"] if self.trains_itself else []
        return ", ".join([*name, *hidden, f"context_size={self.context_size}"])


def _finite(tensor: Tensor) -> Tensor:
    return tensor.nan_to_num(0.0, 0.0, 0.0)


def _check_options(context_size: object, feature_dim: object, name: object, like: object) -> None:
    """Raise :class:`SynthesizerError` where an option of an interface is of a wrong kind."""
    if context_size is not None:
        check_whole("context_size", context_size, 1, SynthesizerError)
    if feature_dim is not None:
        check_whole("feature_dim", feature_dim, error=SynthesizerError)
    if name is not None and not isinstance(name, str):
        raise SynthesizerError(f"name must be a text, not {type(name).__name__}")
    if like is not None:
        check_tensor("like", like, SynthesizerError)
