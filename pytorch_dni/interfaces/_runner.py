"""Calling a synthesizer on a trigger and a context, whichever of the two signatures it has."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn, Tensor

from .._normalization import Scalar
from ..context import check_no_context, Context
from ..errors import ContextError, SynthesizerError
from ..synthesizers import BasicSynthesizer
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
        takes_error: Whether the synthesizer needs the error.
        checks: Whether there is anything to check.
        mlp: The MLP that is all of the synthesizer; None where it is not one.
    """

    takes_context: bool
    takes_error: bool = False

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

    def width(self, trigger: Tensor) -> int | None:
        """Return the features that a trigger must have; None where that is not known."""
        return None

    def check_takes(self, context: Context | None) -> None:
        """Raise :class:`ContextError` where a context is given to a synthesizer without use."""
        if not self.takes_context:
            check_no_context(context, self.owner)

    def arranged(self, trigger: Tensor) -> Tensor:
        """Return the trigger in the shape that the synthesizer takes."""
        return trigger

    @property
    def error_input(self) -> str | None:
        """What an error is to the synthesizer, the output's or a local head's; None without one.

        ``"feedback"``: the prediction is linear in it. ``"joined"``: it is a part of the input.
        """
        if getattr(self.synthesizer, "predicts", "") in ("feedback", "local error"):
            return "feedback"
        return "joined" if self.takes_error else None

    def check_needs_no_error(self) -> None:
        """Raise :class:`SynthesizerError` where the synthesizer cannot do without the error."""
        if self.takes_error:
            raise SynthesizerError(
                f"{self.owner}: {type(self.synthesizer).__name__} takes the error at the output, "
                "which is known in the backward pass only: take DNI(network, unlock='backward'), "
                "or interface(trigger, error=error) with an OutputError; or another synthesizer"
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
