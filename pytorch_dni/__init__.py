"""Synthetic gradients (Decoupled Neural Interfaces) for any PyTorch module, in one line."""

from ._audit import Audit, PartAudit
from ._statistics import InterfaceStats
from .context import synthesizer_context
from .dni import DNI
from .errors import CheckpointError, ContextError, DNIError, SelectionError, SynthesizerError
from .interfaces import (
    backward,
    BackwardInterface,
    BidirectionalInterface,
    defer_backward,
    ForwardInterface,
    OutputError,
    UnidirectionalInterface,
)
from .recurrent import CriticInterface, FutureGradient, StateSpec, TemporalInterface
from .synthesizers import (
    BasicSynthesizer,
    Conv2d_DNI,
    Critic_DNI,
    DNI_Network,
    Feedback_DNI,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    RNN_DNI,
)

__version__ = "0.1.0"

__all__ = [
    "DNI",
    "synthesizer_context",
    "InterfaceStats",
    "Audit",
    "PartAudit",
    "UnidirectionalInterface",
    "ForwardInterface",
    "BackwardInterface",
    "BidirectionalInterface",
    "OutputError",
    "TemporalInterface",
    "CriticInterface",
    "StateSpec",
    "FutureGradient",
    "backward",
    "defer_backward",
    "DNI_Network",
    "BasicSynthesizer",
    "Linear_DNI",
    "Linear_Sigmoid_DNI",
    "RNN_DNI",
    "Conv2d_DNI",
    "Critic_DNI",
    "Feedback_DNI",
    "LocalError_DNI",
    "LocalLoss_DNI",
    "DNIError",
    "SelectionError",
    "SynthesizerError",
    "ContextError",
    "CheckpointError",
]
