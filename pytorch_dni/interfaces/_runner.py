"""Calling a synthesizer on a trigger and a context, whichever of the two signatures it has."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn, Tensor

from .._normalization import Scalar
from .._tree import map_tensors
from ..context import check_no_context, Context
from ..errors import ContextError, SynthesizerError
from ..synthesizers import BasicSynthesizer, DNI_Network, Feedback_DNI
from ..synthesizers._mlp import MLP
from ..synthesizers.base import Hidden
from ._error import ScaledError
from ._run import Run, Taped


class Runner(ABC):
    """Calls a synthesizer with the arguments that it takes.

    Args:
        synthesizer: The synthesizer.
        context_size: Width of the context that is joined to the trigger or given beside it.
        feature_dim: The trigger's dimension of features or channels.
        owner: What error messages call the interface.

    Attributes:
        takes_context: Whether the synthesizer takes a context.
        checks: Whether there is anything to check.
        mlp: The MLP that is all of the synthesizer; None where it is not one.
    """

    takes_context: bool

    def __init__(
        self, synthesizer: nn.Module, context_size: int | None, feature_dim: int, owner: str
    ) -> None:
        self.synthesizer = synthesizer
        self.context_size = context_size
        self.feature_dim = feature_dim
        self.owner = owner
        self.takes_context = context_size is not None
        self.checks = context_size is not None or isinstance(synthesizer, BasicSynthesizer)
        as_mlp = getattr(synthesizer, "as_mlp", None)
        self.mlp: MLP | None = None if as_mlp is None else as_mlp()

    def check(self, trigger: Tensor, context: Context | None) -> None:
        """Raise :class:`DNIError` where the trigger or the context does not fit, or is missing."""
        trigger = self.arranged(trigger)
        if isinstance(self.synthesizer, BasicSynthesizer):
            self.synthesizer.check(trigger, self.owner)
        if self.context_size is None:
            return
        if context is None:
            raise ContextError(
                f"{self.owner} needs a context of size {self.context_size}: run the "
                "forward pass inside `with synthesizer_context(labels):`"
            )
        context.broadcast_to_trigger(trigger, self.context_size, self.feature_dim, self.owner)

    def check_takes(self, context: Context | None) -> None:
        """Raise :class:`ContextError` where a context is given to a synthesizer without use."""
        if not self.takes_context:
            check_no_context(context, self.owner)

    def arranged(self, trigger: Tensor) -> Tensor:
        """Return the trigger in the shape that the synthesizer takes."""
        return trigger

    @property
    def takes_error(self) -> bool:
        """Whether the synthesizer needs the error."""
        return False

    @property
    def scales_error(self) -> bool:
        """Whether an error is divided by its running size: the output's, or a local head's."""
        return self.takes_error or getattr(self.synthesizer, "predicts", "") == "local error"

    def check_needs_no_error(self) -> None:
        """Raise :class:`SynthesizerError` where the synthesizer cannot do without the error."""
        if self.takes_error:
            raise SynthesizerError(
                f"{self.owner}: {type(self.synthesizer).__name__} takes the error of a step, which "
                "DNI(network, unlock='backward') alone gives to synthesizers: take another one here"
            )

    def fits(self, trigger: Tensor, error: Tensor) -> bool:
        """Return whether an error has a shape that the synthesizer can use for a trigger."""
        return True

    @abstractmethod
    def run(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        unit: Scalar,
        error: ScaledError | None = None,
    ) -> Run:
        """Call the synthesizer; call under ``no_grad``, with a context that was checked.

        The output is multiplied by ``unit`` already where that costs nothing.
        """

    def _recorded(self, mlp: MLP, input: Tensor, unit: Scalar, feature_dim: int = -1) -> Run:
        if isinstance(unit, Tensor):
            unit = 1.0
        output, tape = mlp.record(input, unit)
        return Run(output, None, Taped(mlp, tape, feature_dim), unit)

    def joined(self, trigger: Tensor, context: Context | None) -> Tensor:
        """Return the trigger joined with its context."""
        if self.context_size is None or context is None:
            return trigger
        return context.joined(trigger, self.context_size, self.feature_dim, self.owner)


class NetworkRunner(Runner):
    """For ``forward(input, hidden) -> (output, hidden)``, with the context joined to the input."""

    def __init__(
        self, synthesizer: DNI_Network, context_size: int | None, feature_dim: int, owner: str
    ) -> None:
        super().__init__(synthesizer, context_size, feature_dim, owner)
        self._move_features = feature_dim != -1 and synthesizer.features_last

    @property
    def takes_error(self) -> bool:
        """Whether the error is joined to the synthesizer's input, too."""
        return bool(self.synthesizer.takes_error)

    def fits(self, trigger: Tensor, error: Tensor) -> bool:
        """Return whether the error can be joined to a trigger, at its positions or broadcast."""
        return Context(error).fits(trigger, self._error_size(trigger), self.feature_dim)

    def _error_size(self, trigger: Tensor) -> int:
        assert isinstance(self.synthesizer, DNI_Network)
        known = trigger.shape[self.feature_dim] + (self.context_size or 0)
        return self.synthesizer.input_size - known

    def run(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        unit: Scalar,
        error: ScaledError | None = None,
    ) -> Run:
        """Predict; call under ``no_grad``, with a context that was checked."""
        input = self.joined(trigger, context)
        if error is None:
            self.check_needs_no_error()
        else:
            scaled = Context(error.value / error.unit)
            features = scaled.broadcast_to_trigger(
                trigger, self._error_size(trigger), self.feature_dim, self.owner
            )
            input = torch.cat([input, features.movedim(-1, self.feature_dim)], self.feature_dim)
        if self._move_features:
            input = input.movedim(self.feature_dim, -1)
        if self.mlp is not None:
            dim = self.feature_dim if self._move_features else -1
            run = self._recorded(self.mlp, input, unit, dim)
        else:
            with torch.enable_grad():
                output, hidden = self.synthesizer(input, hidden)
            run = Run(output, map_tensors(hidden, Tensor.detach))
        return self._moved_back(run) if self._move_features else run

    def _moved_back(self, run: Run) -> Run:
        with torch.enable_grad():
            return run._replace(output=run.output.movedim(-1, self.feature_dim))


class FeedbackRunner(NetworkRunner):
    """For synthesizers with ``predicts = "feedback"``, which are given the error by itself."""

    @property
    def takes_error(self) -> bool:
        """Whether the synthesizer needs the error: it does."""
        return True

    def fits(self, trigger: Tensor, error: Tensor) -> bool:
        """Return whether the synthesizer maps such an error to such a trigger's gradient."""
        fits = getattr(self.synthesizer, "fits", None)
        return fits is None or bool(fits(error, trigger.movedim(self.feature_dim, -1)))

    def run(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        unit: Scalar,
        error: ScaledError | None = None,
    ) -> Run:
        """Predict; call under ``no_grad``, with an error that fits."""
        if error is None:
            self.check_needs_no_error()
        assert error is not None
        moved = trigger if self.feature_dim == -1 else trigger.movedim(self.feature_dim, -1)
        run = self._by_hand(moved, unit, error)
        if run is None:
            with torch.enable_grad():
                output, hidden = self.synthesizer(moved, hidden, error.value / error.unit)
            run = Run(output, map_tensors(hidden, Tensor.detach))
        return run if self.feature_dim == -1 else self._moved_back(run)

    def _by_hand(self, trigger: Tensor, unit: Scalar, error: ScaledError) -> Run | None:
        if not isinstance(self.synthesizer, Feedback_DNI):
            return None
        if isinstance(unit, Tensor) or isinstance(error.unit, Tensor):
            # On an accelerator, reading the units would stall the queue.
            value, error_unit, unit = error.value / error.unit, 1.0, 1.0
        else:
            value, error_unit = error.value, error.unit
        recorded = self.synthesizer.record(trigger, value, error_unit, unit)
        if recorded is None:
            return None
        output, tape = recorded
        return Run(output, None, Taped(self.synthesizer, tape, self.feature_dim), unit)


class ModuleRunner(Runner):
    """For ``forward(trigger, context) -> message``.

    A module with a ``context_dim`` (or an interface with a ``context_size``) is given features of
    that size at each position of the trigger; any other the context as the user gave it, or None.
    """

    def __init__(
        self, synthesizer: nn.Module, context_size: int | None, feature_dim: int, owner: str
    ) -> None:
        super().__init__(synthesizer, context_size, feature_dim, owner)
        self.takes_context = context_size is not None or not hasattr(synthesizer, "context_dim")

    def run(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        unit: Scalar,
        error: ScaledError | None = None,
    ) -> Run:
        """Predict; call under ``no_grad``, with a context that was checked."""
        trigger = self.arranged(trigger)
        if self.mlp is not None:
            return self._recorded(self.mlp, self.joined(trigger, context), unit)
        given = None
        if context is not None and self.takes_context:
            given = context.raw if self.context_size is None else self._broadcast(trigger, context)
        with torch.enable_grad():
            output = self.synthesizer(trigger, given)
        if not isinstance(output, Tensor):
            raise SynthesizerError(
                f"{self.owner}: the synthesizer ({type(self.synthesizer).__name__}) returned a "
                f"{type(output).__name__}: forward(trigger, context) must return the message; one "
                "with forward(input, hidden) derives from DNI_Network"
            )
        return Run(output)

    def arranged(self, trigger: Tensor) -> Tensor:
        """Flatten the trigger for a synthesizer that takes samples as a whole."""
        flatten = getattr(self.synthesizer, "flatten_trigger", False)
        return trigger.flatten(1) if flatten else trigger

    def _broadcast(self, trigger: Tensor, context: Context) -> Tensor:
        assert self.context_size is not None
        features = context.broadcast_to_trigger(
            trigger, self.context_size, self.feature_dim, self.owner
        )
        return features.movedim(-1, self.feature_dim)


def runner(
    synthesizer: nn.Module, context_size: int | None, feature_dim: int, owner: str
) -> Runner:
    """Return the runner for a synthesizer's signature."""
    if isinstance(synthesizer, DNI_Network):
        if synthesizer.predicts == "feedback":
            return FeedbackRunner(synthesizer, context_size, feature_dim, owner)
        return NetworkRunner(synthesizer, context_size, feature_dim, owner)
    return ModuleRunner(synthesizer, context_size, feature_dim, owner)
