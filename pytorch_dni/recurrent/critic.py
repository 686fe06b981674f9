"""The interface in time whose synthesizer predicts the future loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from .._checks import check_tensor
from .._normalization import RunningScale
from ..context import Context
from ..errors import DNIError, SynthesizerError
from ..interfaces._error import ScaledError
from ..interfaces._pending import PendingUpdate
from ..interfaces._prediction import Prediction, ReturnGradient
from ..synthesizers import Critic_DNI
from ..synthesizers.base import Hidden
from ._observed_losses import ObservedLosses
from ._stability import ProbeScale
from .interface import TemporalInterface


class CriticInterface(TemporalInterface):
    """Injects the gradient of the future loss, which a critic predicts from a state.

    The critic learns from losses that are observed (:meth:`observe`) over its horizon, not from
    its own predictions. Arguments are those of :class:`TemporalInterface`.

    Args:
        synthesizer: A :class:`Critic_DNI`.

    Raises:
        SynthesizerError: The synthesizer is no critic.

    Source: Czarnecki et al. 2017, section 4: critics.
    """

    def __init__(self, synthesizer: nn.Module, **options: Any) -> None:
        if not isinstance(synthesizer, Critic_DNI):
            raise SynthesizerError(
                f"a CriticInterface takes a Critic_DNI, not {type(synthesizer).__name__}"
            )
        super().__init__(synthesizer, **options)
        self.observed = ObservedLosses(synthesizer, self.moments.values.new_zeros(()))

    def _make_scale(self, like: Tensor) -> RunningScale:
        # This is the unit of gradients, for the bound. The critic's own unit is that of losses.
        return ProbeScale(like, nn.Identity())

    def ask(
        self,
        trigger: Tensor,
        context: Context | None,
        hidden: Hidden,
        error: ScaledError | None = None,
    ) -> Prediction:
        """Predict the gradient; the trigger has the synthesizer's type."""
        with torch.enable_grad():
            leaf = trigger.detach().requires_grad_()
            values, _ = self.synthesizer(self._with_context(leaf, context), None)
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
        again = partial(self.ask, trigger, context, hidden)
        return ReturnGradient(gradient * self.observed.scale.value, self.moments, again)

    def _with_context(self, state: Tensor, context: Context | None) -> Tensor:
        if self.context_size is None or context is None:
            return state
        return context.joined(state, self.context_size, -1, self.owner)

    def begin_window(
        self, state: Tensor, context: Context | None, continued: Tensor, valid_mask: Tensor
    ) -> None:
        """Note that a window begins with a state."""
        self.observed.begin_window(state.to(self.dtype), context, continued, valid_mask)

    def begin_sequence(self) -> None:
        """Note that the last state of the window before was not carried on."""
        self.observed.begin_sequence()

    def observe(self, losses: Tensor) -> None:
        """Note the losses of the window that has run, for each sample.

        Call it between the forward and the backward pass. Their sum must be the window's loss: for
        a mean over the batch, give each sample's loss divided by the number of samples.

        Args:
            losses: ``(batch,)``.

        Raises:
            DNIError: They are of another shape.
        """
        check_tensor(f"{self.owner}: what observe() takes", losses)
        if losses.dim() != 1:
            raise DNIError(
                f"{self.owner}: observe() takes one loss for each sample, but got shape "
                f"{tuple(losses.shape)}"
            )
        self.observed.observe(losses)

    def learn_observed(self) -> None:
        """In a backward pass, learn from losses that were observed over the whole horizon."""
        self.learner.collect_undo(self.keep_losses())
        with torch.no_grad():
            for lesson in self.observed.lessons(self._with_context):
                self.learner.collect(PendingUpdate(lesson))

    def keep_losses(self) -> Callable[[], None]:
        """Return what takes back all that is noted and learned from now on, but for the critic."""
        return self.observed.keep()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CriticInterface:
        super()._apply(fn, recurse)
        self.observed.to(self.moments.values.new_zeros(()))
        return self

    def saved_tree(self) -> dict[str, Any]:
        """Return the state of the base class, and the losses observed so far."""
        return {**super().saved_tree(), "returns": self.observed.state_dict()}

    def load_tree(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_tree(state)
        self.observed.load_state_dict(state["returns"])
