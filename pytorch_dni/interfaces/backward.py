"""The backward interface: gradients cross a cut as predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn, Tensor

from .._moments import InterfaceStats, Moments, RunningScale
from ..context import Context
from ..errors import ContextError, SynthesizerError
from ..synthesizers._perceptron import Perceptron, Tape
from ..synthesizers.base import DNI_Network, Hidden
from .predictions import LossGradient, Prediction, RegressedGradient


class BackwardInterface(nn.Module):
    """Predicts the gradient with respect to an activation from that activation, the trigger.

    Args:
        synthesizer: The network that predicts.
        name: What messages call the interface; in the wrapper the qualified name of its module.
        feature_dim: The trigger's dimension of features or channels.
        context_size: Width of the context joined to the trigger; None for no context.
        like: Gives type and device where the synthesizer has no parameters to tell them.

    Source: Jaderberg et al. 2017, section 2.1.
    """

    def __init__(
        self,
        synthesizer: nn.Module,
        *,
        name: str = "",
        feature_dim: int = -1,
        context_size: int | None = None,
        like: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.synthesizer = synthesizer
        self.name = name
        self.feature_dim = feature_dim
        self.context_size = context_size
        self.hidden: Hidden = None
        # Any module with forward(input, hidden) will do; only DNI_Network says more of itself.
        self.default_lr: float = getattr(synthesizer, "default_lr", DNI_Network.default_lr)
        self._predicts: str = getattr(synthesizer, "predicts", DNI_Network.predicts)
        self._move_features = feature_dim != -1 and getattr(
            synthesizer, "features_last", DNI_Network.features_last
        )
        self._perceptron = synthesizer.taped() if isinstance(synthesizer, DNI_Network) else None
        like = next(synthesizer.parameters(), torch.zeros(()) if like is None else like)
        self.dtype = torch.promote_types(like.dtype, torch.float32)
        like = torch.zeros((), dtype=self.dtype, device=like.device)
        self.moments = Moments(like)
        normalize = getattr(synthesizer, "normalize_target", DNI_Network.normalize_target)
        self.scale = RunningScale(like) if normalize else None

    def check(self, trigger: Tensor, context: Context | None) -> None:
        """Raise :class:`ContextError` where the context does not fit, or is there without need."""
        if self.context_size is None:
            if context is not None:
                raise ContextError(
                    f"interface {self.name!r} got a context, but takes none: give DNI context_size="
                    "(the number of classes, or of features), or leave synthesizer_context away"
                )
        elif context is None:
            raise ContextError(
                f"interface {self.name!r} needs a context of size {self.context_size}: run the "
                "forward pass inside `with synthesizer_context(labels):`"
            )
        elif self._predicts == "loss":
            context.target(self.context_size, trigger, self.name)
        else:
            like = trigger if trigger.dtype == self.dtype else trigger.to(self.dtype)
            context.laid(like, self.context_size, self.feature_dim, self.name)

    def predict(self, trigger: Tensor, context: Context | None = None) -> Prediction:
        """The synthetic gradient for an activation of the trigger's shape, in at least float32.

        Raises:
            ContextError: The context is missing, unexpected or of a wrong shape.
            SynthesizerError: What the synthesizer predicts is not of the trigger's shape.
        """
        if (context is None) != (self.context_size is None):
            self.check(trigger, context)
        trigger = trigger.detach().to(self.dtype)
        if torch.is_autocast_enabled(trigger.device.type):
            with torch.autocast(trigger.device.type, enabled=False):
                return self._predict(trigger, context)
        return self._predict(trigger, context)

    def _predict(self, trigger: Tensor, context: Context | None) -> Prediction:
        if self._predicts == "loss":
            return self._local_loss(trigger, context)
        input = trigger
        if self.context_size is not None and context is not None:
            input = context.joined(trigger, self.context_size, self.feature_dim, self.name)
        if self._move_features:
            input = input.movedim(self.feature_dim, -1)
        output, taped = self._run(input)
        if self._move_features:
            with torch.enable_grad():
                output = output.movedim(-1, self.feature_dim)
        if output.shape != trigger.shape:
            raise SynthesizerError(
                f"the synthesizer of interface {self.name!r} ({type(self.synthesizer).__name__}) "
                f"predicts shape {tuple(output.shape)} for an activation of shape "
                f"{tuple(trigger.shape)}: make its output_size the activation's features"
            )
        return RegressedGradient(output, self.scale, self.moments, taped)

    def _run(self, input: Tensor) -> tuple[Tensor, tuple[Perceptron, Tape] | None]:
        if self._perceptron is not None:
            output, tape = self._perceptron.run(input)
            return output, (self._perceptron, tape)
        with torch.enable_grad():
            output, hidden = self.synthesizer(input, self.hidden)
        self.hidden = _mapped(Tensor.detach, hidden)
        return output, None

    def _local_loss(self, trigger: Tensor, context: Context | None) -> Prediction:
        assert isinstance(self.synthesizer, DNI_Network)
        assert context is not None
        assert self.context_size is not None
        target = context.target(self.context_size, trigger, self.name)
        gain = self.moments.ratio
        moved = trigger.movedim(self.feature_dim, -1)
        gradient = self.synthesizer.loss_gradient(moved, target, gain)
        return LossGradient(gradient.movedim(-1, self.feature_dim), gain, self.moments)

    def stats(self) -> InterfaceStats:
        """How well it predicts, over about the last hundred updates."""
        gain = self.moments.ratio.item() if self._predicts == "loss" else 1.0
        return self.moments.stats(gain)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BackwardInterface:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.dtype = torch.promote_types(fn(self.moments.values).dtype, torch.float32)
        # A network in half precision keeps its synthesizers, which are small, in single.
        self.synthesizer.to(self.dtype)
        like = fn(self.moments.values).to(self.dtype)
        self.moments.to(like)
        if self.scale is not None:
            self.scale.to(like)
        self.hidden = _mapped(fn, self.hidden)
        return self

    def extra_repr(self) -> str:
        """Name and sizes, for ``print``."""
        return f"name={self.name!r}, context_size={self.context_size}"

    def get_extra_state(self) -> dict[str, Any]:
        """The normalisation and the recurrent synthesizer's state, for ``state_dict``."""
        scale = None if self.scale is None else self.scale.state_dict()
        return {"moments": self.moments.state_dict(), "scale": scale, "hidden": self.hidden}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.moments.load_state_dict(state["moments"])
        if self.scale is not None:
            self.scale.load_state_dict(state["scale"])
        self.hidden = state["hidden"]


def _mapped(fn: Callable[[Tensor], Tensor], hidden: Hidden) -> Hidden:
    if isinstance(hidden, Tensor):
        return fn(hidden)
    if isinstance(hidden, (tuple, list)):
        return type(hidden)(_mapped(fn, part) for part in hidden)
    if isinstance(hidden, dict):
        return {key: _mapped(fn, part) for key, part in hidden.items()}
    return hidden
