"""The interface in time: at the state that one window carries to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from .._checkpoint import number
from .._checks import whole
from .._normalization import RunningScale
from .._tree import floating_tensors
from ..context import Context, current_context
from ..errors import DNIError
from ..interfaces import backward, BackwardInterface
from ..interfaces._deferred import check_graph
from ..interfaces._error import OutputError
from ..interfaces._gradient_crossing import CutPolicy
from ..interfaces._learner import Trained
from ..interfaces._pending import PendingUpdate
from ..synthesizers import DNI_Network
from ._auxiliary import Auxiliary, auxiliary_for
from ._kinds import check_kind
from ._observer import Observer
from ._stability import bounded, Guard, GUARD_EVERY, Injection, NO_INJECTION, ProbeScale
from .future import check_future, FutureGradient
from .spec import join_state, split_state


class TemporalInterface(Observer, BackwardInterface):
    """Predicts the gradient that later windows would send back to a state, from that state.

    States may be trees of tensors. By hand, in a loop over windows::

        with defer_backward():
            state = interface.make_trigger(state)  # detached; its gradient is the next target
            ...                                    # the window, from state to state
            backward(loss)
            interface.backward(state)              # the synthetic gradient of the future

    The target at a window's first state is what the window sends back, including what was injected
    at its last state: it is bootstrapped. Other arguments are those of
    :class:`UnidirectionalInterface`.

    Args:
        synthesizer: Predicts the gradient of the state's joined tensors, ``(batch, features)``.
        future: How predictions are used.
        batch_dim: Dimension of the samples in each tensor of the state.

    Raises:
        SynthesizerError: An argument is wrong.

    Source: Jaderberg et al. 2017: recurrent networks; van Hasselt et al. 2016: rescaled outputs.
    """

    auxiliary: Auxiliary | None

    def __init__(
        self,
        synthesizer: nn.Module,
        *,
        future: FutureGradient | None = None,
        batch_dim: int = 0,
        **options: Any,
    ) -> None:
        object.__setattr__(self, "auxiliary", None)  # the base class asks for what is trained
        super().__init__(synthesizer, **options)
        check_kind(synthesizer, self.owner)
        self.future = check_future(future)
        self.batch_dim = whole("batch_dim", batch_dim)
        self.windows = 0
        self.guard = Guard(self.owner)
        self.injection = NO_INJECTION  # into the window that is backpropagated
        if self.future.auxiliary:
            self._add_auxiliary()

    def _add_auxiliary(self) -> None:
        auxiliary = auxiliary_for(self.synthesizer, self.owner, self.moments.values)
        # No submodule, as the synthesizer, where it is trained here.
        set_attribute = object.__setattr__ if self.trains_itself else nn.Module.__setattr__
        set_attribute(self, "auxiliary", auxiliary)
        self.learner.add([(auxiliary, DNI_Network.default_lr)], self.name or "")

    def trained(self) -> list[Trained]:
        """Return the modules that a learner trains, each with its default learning rate."""
        own = [] if self.auxiliary is None else [(self.auxiliary, DNI_Network.default_lr)]
        return [*super().trained(), *own]

    def _make_scale(self, like: Tensor) -> RunningScale | None:
        normalizes = super()._make_scale(like) is not None
        return ProbeScale(like, self.synthesizer) if normalizes else None

    def make_trigger(self, trigger: Any) -> Any:
        """Return a state detached; the gradient that comes to it trains the synthesizer.

        In ``eval()`` and under ``no_grad`` it returns the state itself.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
            DNIError: ``future`` asks for a target that needs the wrapper.
        """
        if not self._is_learning():
            return trigger
        if self.future.target != "bootstrap":
            raise DNIError(
                f"{self.owner}: target={self.future.target!r} runs windows again, which takes the "
                "wrapper, DNI(network, future=...); by hand it is 'bootstrap'"
            )
        joined = join_state(trigger, self.batch_dim).detach()
        cut = super().make_trigger(joined)
        all_samples = torch.ones(len(joined), dtype=torch.bool, device=joined.device)
        self.begin_window(joined, current_context(), all_samples, all_samples)
        return split_state(cut, trigger, self.batch_dim)

    def backward(self, trigger: Any, factor: float | None = None) -> None:
        """Backpropagate the synthetic gradient from a state.

        At once, or at the end of a :func:`defer_backward` scope. In ``eval()`` nothing happens.

        Args:
            trigger: The state.
            factor: Replaces the factor of ``future``.

        Raises:
            DNIError: The state has no graph.
            ContextError: The context of the scope is missing or does not fit.
        """
        if not self.training:
            return
        for tensor in floating_tensors(trigger):
            check_graph(f"backward() of {self.owner}", tensor)
        joined = join_state(trigger, self.batch_dim)
        context = current_context()
        self.check(joined, context)
        backward(joined, self.inject(joined.detach(), context, factor=factor))

    def inject(
        self,
        state: Tensor,
        context: Context | None,
        ended: Tensor | None = None,
        factor: float | None = None,
        bp_lambda: float = 0.0,
    ) -> Tensor:
        """Return the gradient that is injected into a window at its last state.

        Args:
            state: The last state, ``(batch, features)``.
            context: The context of the window.
            ended: Samples, ``(batch,)``, that have no future: they get zero.
            factor: Replaces the factor of ``future``.
            bp_lambda: Share that is left out: at 1 all gradients are those of backpropagation.
        """
        self.learner.collect_undo(partial(self._restore_window, self.windows, self.injection))
        self.windows += 1
        self.learn_observed()
        factor = (self.future.factor if factor is None else factor) * (1 - bp_lambda)
        has_no_unit = self.scale is not None and not self.scale.count
        if has_no_unit or not self.guard.injects:
            factor = 0.0
        probes = isinstance(self.scale, ProbeScale) and self.windows % self.future.probe == 0
        self.injection = Injection(factor, probes)
        if self.injection.is_empty:
            return torch.zeros_like(state)
        predicted = self.predict_future(state, context, ended)
        self.injection = Injection(factor, probes, predicted)
        return (predicted * factor).to(state.dtype)

    def _restore_window(self, windows: int, injection: Injection) -> None:
        self.windows, self.injection = windows, injection

    def predict_future(
        self, state: Tensor, context: Context | None, ended: Tensor | None = None
    ) -> Tensor:
        """Predict the gradient of the future, bounded; zero for samples that have none."""
        with torch.no_grad():
            gradient = self.predict(state, context).message
            if isinstance(self.scale, ProbeScale) and self.future.bound is not None:
                gradient = bounded(gradient, self.future.bound * self.scale.value)
            if ended is not None:
                gradient = gradient.masked_fill(ended.unsqueeze(1), 0.0)
            return gradient

    def end_update(
        self, state: Tensor, context: Context | None, valid_mask: Tensor | None
    ) -> PendingUpdate | None:
        """Compute what a state without future teaches; None while all predictions are zero."""
        if self.scale is not None and not self.scale.count:
            return None  # there is no unit yet
        with torch.no_grad():
            prediction = self.predict(state, context)
        return self.learn(prediction, torch.zeros_like(state), valid_mask)

    def learn_from(
        self,
        state: Tensor,
        context: Context | None,
        grad: Tensor,
        valid_mask: Tensor | None = None,
        continued: Tensor | None = None,
    ) -> None:
        """In a backward pass, learn from the gradient that came to a window's first state.

        Args:
            state: The state as the window before left it: ``(batch, features)``.
            context: The context of the window before.
            grad: The gradient; 0 where that window's state was not carried on.
            valid_mask: Samples, ``(batch,)``, that count; None for all.
            continued: Samples whose state was carried on; None for all.
        """
        probes = self.injection.probes
        true = self.true_gradient(state, grad, valid_mask, continued)
        if probes:
            # Without what would have been injected, the gradient is no target.
            self.learner.mark_step()
            return
        self.learner.collect(self.update_towards(state, context, true, valid_mask))
        self.check_guard()

    def true_gradient(
        self, state: Tensor, grad: Tensor, valid_mask: Tensor | None, continued: Tensor | None
    ) -> Tensor:
        """In a backward pass, measure a true gradient and add that of the auxiliary task."""
        injection, self.injection = self.injection, NO_INJECTION
        true = grad.detach().to(self.dtype)
        if isinstance(self.scale, ProbeScale) and injection.is_empty:
            self.learner.collect_undo(self.scale.measure(true, continued))
        if self.auxiliary is None or self.scale is None or injection.predicted is None:
            return true
        if injection.predicted.shape != true.shape:  # the batch has become smaller
            return true
        unit = self.scale.value
        mask = valid_mask if continued is None else continued
        lesson, gradient = self.auxiliary.learn(state.to(true), injection.predicted / unit, mask)
        self.learner.collect(PendingUpdate(lesson))
        return true + gradient * (self.future.auxiliary * unit)

    def update_towards(
        self, state: Tensor, context: Context | None, true: Tensor, valid_mask: Tensor | None
    ) -> PendingUpdate:
        """Compute what a state's true gradient teaches; nothing changes yet."""
        with torch.no_grad():
            prediction = self.predict(state, context)
        return self.learn(prediction, true, valid_mask)

    def check_guard(self) -> None:
        """Have the guard check the predictions, where it is time."""
        if self.future.guard and self.moments.updates % GUARD_EVERY == 0:
            self.learner.collect_undo(self.guard.check(self.stats()))

    def exchange(
        self,
        trigger: Tensor,
        context: Context | None,
        true: Tensor | None,
        policy: CutPolicy,
        error: OutputError | None = None,
    ) -> Tensor | None:
        """In a backward pass, learn from the gradient of a trigger; nothing is passed back."""
        if true is not None:
            self.learn_from(trigger, context, true)
        return None

    def saved_tree(self) -> dict[str, Any]:
        """Return the state of the base class, of the guard, and of the auxiliary task."""
        own: dict[str, Any] = {"windows": self.windows, "injects": self.guard.state_dict()}
        if self.auxiliary is not None and self.trains_itself:
            own["auxiliary"] = {**self.auxiliary.state_dict()}
        return {**super().saved_tree(), **own}

    def load_tree(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_tree(state)
        self.windows = number(state["windows"])
        self.guard.load_state_dict(state["injects"])
        if self.auxiliary is not None and self.trains_itself:
            self.auxiliary.load_state_dict(state["auxiliary"])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TemporalInterface:
        super()._apply(fn, recurse)
        self.injection = NO_INJECTION
        if self.auxiliary is not None:
            self.auxiliary.to(self.moments.values)
        return self
