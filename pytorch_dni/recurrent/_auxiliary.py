"""The auxiliary task: to predict the next synthetic gradient."""

from __future__ import annotations

import torch
from torch import nn, Tensor

from .._normalization import sum_of_squares
from ..errors import SynthesizerError
from ..interfaces._pending import Lesson
from ..synthesizers._init import init_zero_
from ..synthesizers._mlp import MLP


class Auxiliary(nn.Module):
    """Predicts, from the state that a window begins with, the synthetic gradient at its end.

    Args:
        size: Features of the state.

    Source: Jaderberg et al. 2017, section 3.1.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = MLP(size, size, size, 1, None)
        init_zero_(self.layers.last)

    @torch.no_grad()
    def learn(
        self, state: Tensor, target: Tensor, valid_mask: Tensor | None
    ) -> tuple[Lesson, Tensor]:
        """Regress to the target, by the mean squared error.

        Args:
            state: ``(batch, features)``.
            target: The synthetic gradient in units of true ones, of the same shape.
            valid_mask: Samples, ``(batch,)``, that count; None for all.

        Returns:
            The lesson, and the gradient of half the squared error of each sample by its state.
        """
        output, tape = self.layers.record(state)
        error = output - target
        if valid_mask is not None:
            error = error * valid_mask.unsqueeze(1)
        slope = 2 / max(error.numel(), 1)
        delta, grads = self.layers.backpropagate(tape, error * slope)
        gradient = delta.mm(self.layers.first.weight) / slope
        return Lesson(grads=grads, square=sum_of_squares(target)), gradient


def auxiliary_for(synthesizer: nn.Module, owner: str, like: Tensor) -> Auxiliary:
    """Build the predictor of the auxiliary task, of ``like``'s type and device.

    Raises:
        SynthesizerError: The synthesizer does not say how wide the state is.
    """
    size = getattr(synthesizer, "output_size", getattr(synthesizer, "output_dim", None))
    if size is None:
        raise SynthesizerError(
            f"{owner}: the auxiliary task needs the width of the state: give "
            f"{type(synthesizer).__name__} an attribute output_size"
        )
    # The user's random numbers stay as they are.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(size)
        return Auxiliary(size).to(like)
