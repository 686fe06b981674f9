"""How synthesizers start."""

from torch import nn


def zero_(layer: nn.Module) -> None:
    """Start a synthesizer's last layer at zero, so that it first predicts no gradient at all.

    Source: Jaderberg et al. 2017, appendix: the last layers of synthesizers start at zero.
    """
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)
