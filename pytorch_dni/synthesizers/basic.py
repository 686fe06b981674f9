"""The basic synthesizer for interfaces placed by hand."""

from __future__ import annotations

import torch
from torch import nn, Tensor

from .._checks import check_whole
from ..errors import ContextError, SynthesizerError
from ._init import init_zero_
from ._mlp import MLP


class BasicSynthesizer(nn.Module):
    """Predicts a message from a trigger, and a context, by an MLP.

    Any module with this ``forward(trigger, context)`` is a synthesizer. One that has the attribute
    ``context_dim`` is given features of that size at each position of the trigger (labels are
    one-hot encoded). One that lacks it is given the context as the user gave it, or None.

    Args:
        output_dim: Features of the message.
        n_hidden: Hidden layers; 0 is the paper's linear synthesizer.
        hidden_dim: Their width; None makes them as wide as the message.
        trigger_dim: Features of the trigger; None where they are the message's, as they are for
            gradients.
        context_dim: Width of the context, for labels the number of classes. None: no context.
        norm: Normalisation in the hidden layers: ``"batch"`` (statistics of the batch), ``"layer"``
            or None.

    Shape:
        ``(*, trigger_dim)`` and ``(*, context_dim)`` to ``(*, output_dim)``.

    Raises:
        SynthesizerError: A size is wrong.

    Source: Jaderberg et al. 2017, section 2.1: the model ``M``; its last layer starts at zero.
    """

    def __init__(
        self,
        output_dim: int,
        n_hidden: int = 0,
        hidden_dim: int | None = None,
        trigger_dim: int | None = None,
        context_dim: int | None = None,
        norm: str | None = "batch",
    ) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.trigger_dim = output_dim if trigger_dim is None else trigger_dim
        self.context_dim = context_dim
        hidden = output_dim if hidden_dim is None else hidden_dim
        sizes = {
            "output_dim": output_dim,
            "hidden_dim": hidden,
            "trigger_dim": self.trigger_dim,
            "context_dim": 1 if context_dim is None else context_dim,
        }
        for name, size in sizes.items():
            check_whole(f"BasicSynthesizer: {name}", size, 1, SynthesizerError)
        check_whole("BasicSynthesizer: n_hidden", n_hidden, 0, SynthesizerError)
        self.layers = MLP(self.trigger_dim + (context_dim or 0), hidden, output_dim, n_hidden, norm)
        init_zero_(self.layers.last)

    def forward(self, trigger: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict a message ``(*, output_dim)``, in units of its running root mean square.

        Raises:
            ContextError: The context is missing, or of a wrong shape.
            SynthesizerError: The trigger is not ``trigger_dim`` wide.
        """
        self.check(trigger, "a synthesizer")
        if self.context_dim is None:
            return self.layers(trigger)  # type: ignore[no-any-return]
        wanted = (*trigger.shape[:-1], self.context_dim)
        if context is None or context.shape != wanted:
            given = None if context is None else tuple(context.shape)
            raise ContextError(
                f"BasicSynthesizer takes a context of shape {wanted} here, but got {given}"
            )
        return self.layers(torch.cat([trigger, context.to(trigger)], -1))  # type: ignore[no-any-return]

    def check(self, trigger: Tensor, owner: str) -> None:
        """Raise :class:`SynthesizerError` where the trigger of an interface does not fit."""
        if trigger.dim() == 0 or trigger.shape[-1] != self.trigger_dim:
            raise SynthesizerError(
                f"{owner}: a BasicSynthesizer for triggers with {self.trigger_dim} features in the "
                f"last dimension got shape {tuple(trigger.shape)}: give it the right trigger_dim"
            )

    def as_mlp(self) -> MLP | None:
        """Return the MLP if it computes all of :meth:`forward`; None if a subclass changes that."""
        return self.layers if type(self).forward is BasicSynthesizer.forward else None
