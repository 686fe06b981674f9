"""Initial values of synthesizers."""

from torch import nn


def init_zero_(layer: nn.Module) -> None:
    """Set the parameters of a synthesizer's last layer to zero, so that it first predicts zero.

    Source: Jaderberg et al. 2017, appendix: the last layers of synthesizers start at zero.
    """
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)
