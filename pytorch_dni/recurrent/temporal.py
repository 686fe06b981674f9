"""The interface in time: at the state that one window hands to the next."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn, Tensor

from .._tree import floats
from ..context import Context, current_context
from ..errors import DNIError, SynthesizerError
from ..interfaces import backward, BackwardInterface
from ..interfaces._backward import Terms
from ..interfaces._deferred import check_graph
from ._future import Future
from ._scale import PureScale
from .spec import join, split

_OFF, _ON = 1.5, 1.0  # errors, over that of predicting zero, at which the guard turns
_ROUNDING = 0.01
_LOOK = 32  # lessons between two looks of the guard, which wait for the device


class TemporalInterface(BackwardInterface):
    """Predicts the gradient that later windows would send back to a state, from that state.

    States may be trees of tensors. By hand, in a loop over windows::

        with defer_backward():
            state = interface.make_trigger(state)  # cut; its gradient is the next target
            ...                                    # the window, from state to state
            backward(loss)
            interface.backward(state)              # the synthetic gradient of the future

    The target at a window's first state is what the window sends back, with what its last state
    received: bootstrapped. Other arguments are those of :class:`UnidirectionalInterface`.

    Args:
        synthesizer: From the state's tensors side by side, ``(batch, features)``, to their
            gradients.
        future: How predictions are used.
        batch_dim: Dimension of the samples in each tensor of the state.

    Raises:
        SynthesizerError: An argument is wrong.

    Source: Jaderberg et al. 2017: synthetic gradients for recurrent networks; the rescaled output
    of van Hasselt et al. 2016, "Learning values across many orders of magnitude".
    """

    def __init__(
        self,
        synthesizer: nn.Module,
        *,
        future: Future | None = None,
        batch_dim: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(synthesizer, **options)
        if self._predicts_loss:
            raise SynthesizerError(
                f"{self.owner}: {type(synthesizer).__name__} tells the loss at a state, not the "
                "gradient of the future: take a synthesizer that predicts gradients"
            )
        self.future = Future() if future is None else future
        self.batch_dim = batch_dim
        if self.scale is not None:
            self.scale = PureScale(self.moments.values.new_zeros(()), synthesizer)
        self.windows = 0
        self.injects = True  # unless the guard is against it
        self._warned = False
        self._pure = True  # whether nothing was sent into the window that is backpropagated
        self._skip = False  # whether that was so on purpose

    def make_trigger(self, trigger: Any) -> Any:
        """A state cut from its history; the gradient that comes to it teaches the synthesizer.

        In ``eval()`` and under ``no_grad`` the state as it is.

        Raises:
            ContextError: The context of the scope is missing or does not fit.
        """
        if not self._cuts():
            return trigger
        joined = join(trigger, self.batch_dim).detach()
        cut = super().make_trigger(joined)
        everybody = torch.ones(len(joined), dtype=torch.bool, device=joined.device)
        self.hand_on(joined, current_context(), everybody, everybody)
        return split(cut, trigger, self.batch_dim)

    def backward(self, trigger: Any, factor: float | None = None) -> None:
        """Backpropagate the synthetic gradient from a state.

        At once, or at the end of a :func:`defer_backward` scope. In ``eval()`` nothing happens.

        Args:
            trigger: The state.
            factor: Instead of the one in ``future``.

        Raises:
            DNIError: The state is in no graph.
            ContextError: The context of the scope is missing or does not fit.
        """
        if not self.training:
            return
        for tensor in floats(trigger):
            check_graph(f"backward() of {self.owner}", tensor)
        joined = join(trigger, self.batch_dim)
        context = current_context()
        self.check(joined, context)
        backward(joined, self.send_back(joined.detach(), context, factor=factor))

    def send_back(
        self,
        state: Tensor,
        context: Context | None,
        ends: Tensor | None = None,
        factor: float | None = None,
        bp_lambda: float = 0.0,
    ) -> Tensor:
        """What goes into a window at its last state, ``(batch, features)``.

        Args:
            state: Its tensors side by side.
            context: Of the window.
            ends: Samples, ``(batch,)``, that have no future: they get nothing.
            factor: Instead of the one in ``future``.
            bp_lambda: How much of it stays away: at 1 all that is backpropagation's own.
        """
        self.windows += 1
        self.learn_returns()
        factor = (self.future.factor if factor is None else factor) * (1 - bp_lambda)
        measured = isinstance(self.scale, PureScale)
        self._skip = measured and self.windows % self.future.probe == 0
        unmeasured = self.scale is not None and not self.scale.count
        self._pure = self._skip or unmeasured or not self.injects or factor == 0
        if self._pure:
            return torch.zeros_like(state)
        with torch.no_grad():
            gradient = self.predict(state, context).message
            if measured and self.future.bound is not None:
                gradient = self._bounded(gradient)
            if ends is not None:
                gradient = gradient.masked_fill(ends.unsqueeze(1), 0.0)
            given: Tensor = (gradient * factor).to(state.dtype)
            return given

    def _bounded(self, gradient: Tensor) -> Tensor:
        assert self.scale is not None
        assert self.future.bound is not None
        longest = self.future.bound * self.scale.value * gradient.shape[1] ** 0.5
        norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        bounded: Tensor = gradient * (longest / norms.clamp_min(1e-37)).clamp_max(1.0)
        return bounded

    def hand_on(
        self, state: Tensor, context: Context | None, handed: Tensor, counts: Tensor
    ) -> None:
        """A window begins with a state, for those who learn from what comes.

        Args:
            state: What the window before left, ``(batch, features)``.
            context: Of that window.
            handed: Samples, ``(batch,)``, that go on with it.
            counts: Samples that count.
        """

    def end(self) -> None:
        """The state that the last window left was not handed on."""

    def observe(self, losses: Tensor) -> None:
        """The losses of the window that has run, for critics.

        Raises:
            DNIError: This is none.
        """
        raise DNIError(f"{self.owner}: observe() is for critics: give dni_network=Critic_DNI")

    def learn_returns(self) -> None:
        """In a backward pass: learn from what has been observed."""

    def learn_end(self, state: Tensor, context: Context | None, counts: Tensor | None) -> None:
        """In a backward pass, learn that a state was not handed on: its future sends back nothing.

        Arguments are those of :meth:`learn_from`.
        """
        if self.scale is not None and not self.scale.count:
            return  # without a unit the prediction is zero as it is
        with torch.no_grad():
            prediction = self.predict(state, context)
        self.learner.collect(self.lesson(prediction, torch.zeros_like(state), counts))

    def learn_from(
        self,
        state: Tensor,
        context: Context | None,
        grad: Tensor,
        counts: Tensor | None = None,
        handed: Tensor | None = None,
    ) -> None:
        """In a backward pass, learn from the gradient that came to a window's first state.

        Args:
            state: Its tensors side by side, as the window before left it: ``(batch, features)``.
            context: Of the window before.
            grad: The gradient, 0 where that window's state was not handed on.
            counts: Samples, ``(batch,)``, that count; None for all.
            handed: Samples whose state was handed on; None for all.
        """
        pure, skip = self._pure, self._skip
        self._pure, self._skip = True, False
        true = grad.detach().to(self.dtype)
        if isinstance(self.scale, PureScale) and pure:
            self.scale.measure(true, handed)
        if skip:
            # Without what would have been sent in, it is no target.
            self.learner.collect(None)
            return
        with torch.no_grad():
            prediction = self.predict(state, context)
        self.learner.collect(self.lesson(prediction, true, counts))
        if self.future.guard and self.moments.updates % _LOOK == 0:
            self._look()

    def _look(self) -> None:
        stats = self.stats()
        # What overflowed makes figures that are no squares' and no cosine's.
        sound = -_ROUNDING < stats.loss <= _OFF and abs(stats.cosine) < 1 + _ROUNDING
        if self.injects and not sound:
            self.injects = False
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{self.owner}: the synthesizer's error is {stats.loss:.2f} times that of "
                    f"predicting zero (cosine {stats.cosine:.2f}, norm ratio "
                    f"{stats.norm_ratio:.2f}): nothing is sent into the windows until it is below "
                    "1. A lower grad_lr, a lower learning rate of the network, or a context help",
                    stacklevel=2,
                )
        elif not self.injects and sound and stats.loss < _ON:
            self.injects = True

    def answer(
        self, trigger: Tensor, context: Context | None, true: Tensor | None, terms: Terms
    ) -> Tensor | None:
        """In a backward pass, learn from the gradient of a trigger; nothing goes on."""
        if true is not None:
            self.learn_from(trigger, context, true)
        return None

    def get_extra_state(self) -> dict[str, Any]:
        """As in the base class, and where the guard and the probes are."""
        own = {"windows": self.windows, "injects": self.injects}
        return {**super().get_extra_state(), **own}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        super().set_extra_state(state)
        self.windows, self.injects = int(state["windows"]), bool(state["injects"])
