"""Synthesizers: the networks that predict messages, mostly gradients."""

from .base import DNI_Network
from .basic import BasicSynthesizer
from .conv import Conv2d_DNI
from .critic import Critic_DNI
from .feedback import Feedback_DNI
from .linear import Linear_DNI, Linear_Sigmoid_DNI
from .local_error import LocalError_DNI
from .local_loss import LocalLoss_DNI
from .rnn import RNN_DNI

__all__ = [
    "BasicSynthesizer",
    "Conv2d_DNI",
    "Critic_DNI",
    "DNI_Network",
    "Feedback_DNI",
    "Linear_DNI",
    "Linear_Sigmoid_DNI",
    "LocalError_DNI",
    "LocalLoss_DNI",
    "RNN_DNI",
]
