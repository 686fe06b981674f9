"""Synthesizers: the networks that predict messages, mostly gradients."""

from .base import DNI_Network
from .basic import BasicSynthesizer
from .conv import Conv2d_DNI
from .critic import Critic_DNI
from .linear import Linear_DNI, Linear_Sigmoid_DNI
from .local_loss import LocalLoss_DNI
from .rnn import RNN_DNI

__all__ = [
    "BasicSynthesizer",
    "Conv2d_DNI",
    "Critic_DNI",
    "DNI_Network",
    "Linear_DNI",
    "Linear_Sigmoid_DNI",
    "LocalLoss_DNI",
    "RNN_DNI",
]
