"""The backward interface: gradients cross a cut as predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn, Tensor

from .._moments import InterfaceStats, Moments
from ..context import Context
from ..errors import ContextError, SynthesizerError
from ..synthesizers.base import DNI_Network, Hidden
from .predictions import LossGradient, Prediction, RegressedGradient


class BackwardInterface(nn.Module):
    """Predicts the gradient with respect to an activation from that activation, the trigger.

    Args:
        synthesizer: The network that predicts.
        name: What messages call the interface; in the wrapper the qualified name of its module.
        feature_dim: The trigger's dimension of features or channels.
        context_size: Width of the context joined to the trigger; None for no context.

    Source: Jaderberg et al. 2017, section 2.1.
    """

    def __init__(
        self,
        synthesizer: nn.Module,
        *,
        name: str = "",
        feature_dim: int = -1,
        context_size: int | None = None,
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
        self._normalize: bool = getattr(
            synthesizer, "normalize_target", DNI_Network.normalize_target
        )
        self._move_features = feature_dim != -1 and getattr(
            synthesizer, "features_last", DNI_Network.features_last
        )
        self._trained = list(synthesizer.parameters())
        like = next(iter(self._trained), torch.zeros(()))
        self.dtype = torch.promote_types(like.dtype, torch.float32)
        self.moments = Moments(torch.zeros((), dtype=self.dtype, device=like.device))

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
        """The synthetic gradient for an activation of the trigger's shape.

        Raises:
            ContextError: The context is missing, unexpected or of a wrong shape.
            SynthesizerError: What the synthesizer predicts is not of the trigger's shape.
        """
        dtype = trigger.dtype
        trigger = trigger.detach().to(self.dtype)
        self.check(trigger, context)
        if torch.is_autocast_enabled(trigger.device.type):
            with torch.autocast(trigger.device.type, enabled=False):
                return self._predict(trigger, context, dtype)
        return self._predict(trigger, context, dtype)

    def _predict(self, trigger: Tensor, context: Context | None, dtype: torch.dtype) -> Prediction:
        if self._predicts == "loss":
            return self._local_loss(trigger, context, dtype)
        with torch.enable_grad():
            input = trigger
            if self.context_size is not None and context is not None:
                input = context.joined(trigger, self.context_size, self.feature_dim, self.name)
            if self._move_features:
                input = input.movedim(self.feature_dim, -1)
            output, hidden = self.synthesizer(input, self.hidden)
            if self._move_features:
                output = output.movedim(-1, self.feature_dim)
        if output.shape != trigger.shape:
            raise SynthesizerError(
                f"the synthesizer of interface {self.name!r} ({type(self.synthesizer).__name__}) "
                f"predicts shape {tuple(output.shape)} for an activation of shape "
                f"{tuple(trigger.shape)}: make its output_size the activation's features"
            )
        self.hidden = _mapped(Tensor.detach, hidden)
        return RegressedGradient(output, self.moments, self._normalize, dtype)

    def _local_loss(
        self, trigger: Tensor, context: Context | None, dtype: torch.dtype
    ) -> Prediction:
        assert isinstance(self.synthesizer, DNI_Network)
        assert context is not None
        assert self.context_size is not None
        with torch.enable_grad():
            leaf = trigger.detach().requires_grad_()
            target = context.target(self.context_size, leaf, self.name)
            loss = self.synthesizer.loss(leaf.movedim(self.feature_dim, -1), target)
        return LossGradient(loss, leaf, self._trained, self.moments, dtype)

    def stats(self) -> InterfaceStats:
        """How well it predicts, over about the last hundred updates."""
        gain = self.moments.ratio().item() if self._predicts == "loss" else 1.0
        return self.moments.stats(gain)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BackwardInterface:
        super()._apply(fn, recurse)
        like = next(iter(self._trained), self.moments.values)
        self.dtype = torch.promote_types(fn(like).dtype, torch.float32)
        # A network in half precision keeps its synthesizers, which are small, in single.
        self.synthesizer.to(self.dtype)
        self.moments.to(fn(self.moments.values).to(self.dtype))
        self.hidden = _mapped(fn, self.hidden)
        return self

    def extra_repr(self) -> str:
        """Name and sizes, for ``print``."""
        return f"name={self.name!r}, context_size={self.context_size}"

    def get_extra_state(self) -> dict[str, Any]:
        """The normalisation and the recurrent synthesizer's state, for ``state_dict``."""
        return {"moments": self.moments.state_dict(), "hidden": self.hidden}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.moments.load_state_dict(state["moments"])
        self.hidden = state["hidden"]


def _mapped(fn: Callable[[Tensor], Tensor], hidden: Hidden) -> Hidden:
    if isinstance(hidden, Tensor):
        return fn(hidden)
    if isinstance(hidden, (tuple, list)):
        return type(hidden)(_mapped(fn, part) for part in hidden)
    if isinstance(hidden, dict):
        return {key: _mapped(fn, part) for key, part in hidden.items()}
    return hidden
