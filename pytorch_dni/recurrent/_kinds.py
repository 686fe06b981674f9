"""Which kinds of synthesizers an interface in time can use."""

from __future__ import annotations

from torch import nn

from ..errors import SynthesizerError
from ..synthesizers import DNI_Network

_KINDS = ("gradient", "return")


def check_kind(synthesizer: nn.Module, owner: str) -> None:
    """Raise :class:`SynthesizerError` where a synthesizer cannot stand for later windows.

    Local losses predict the loss at a state, not the gradient of the future; the error of later
    windows is not known.
    """
    predicts = getattr(synthesizer, "predicts", DNI_Network.predicts)
    if predicts not in _KINDS or getattr(synthesizer, "takes_error", False):
        needs = "the loss at a state" if predicts == "loss" else "from the error of a present loss"
        raise SynthesizerError(
            f"{owner}: {type(synthesizer).__name__} predicts {needs}, which is not the gradient of "
            "the future: take a synthesizer that predicts gradients from the state alone"
        )
