"""The errors that the library raises; all derive from :class:`DNIError`."""

from torch import nn


class DNIError(ValueError):
    """Base class of all errors that this library raises."""


class SelectionError(DNIError):
    """What ``layers`` asks for is not in the network, or cannot be cut."""


class SynthesizerError(DNIError):
    """A synthesizer cannot be built, or its prediction does not fit the activation."""


class SynthesizerDefectError(SynthesizerError):
    """The user's own code raised an error where a synthesizer is built or asked."""


class ContextError(DNIError):
    """A context is missing, unexpected, or does not fit the activation it belongs to."""


class ContextShapeError(ContextError):
    """The shape of a context does not fit the activation; its kind and its values may be right."""


class CheckpointError(DNIError, RuntimeError):
    """A checkpoint does not fit the wrapper that it is loaded into.

    It is a ``RuntimeError`` too, which ``load_state_dict`` of PyTorch raises.
    """


class LostRankError(DNIError, ConnectionError):
    """Another process of a pipeline has ended, or does not answer any more."""


def describe(name: str, module: nn.Module | None) -> str:
    """Return what error messages call a module: its qualified name and its type."""
    kind = "" if module is None else f" ({type(module).__name__})"
    return f"{name!r}{kind}" if name else f"the whole network{kind}"
