"""What the library raises: one hierarchy, rooted at :class:`DNIError`."""

from torch import nn


class DNIError(ValueError):
    """Root of everything this library raises on purpose."""


class SelectionError(DNIError):
    """What ``layers`` asks for is not in the network, or cannot be cut."""


class SynthesizerError(DNIError):
    """A synthesizer cannot be built, or its prediction does not fit the activation."""


class ContextError(DNIError):
    """A context is missing, unexpected, or does not fit the activation it belongs to."""


class CheckpointError(DNIError):
    """A checkpoint does not fit the wrapper that it is loaded into."""


def describe(name: str, module: nn.Module | None) -> str:
    """How every message names a module: its qualified name and its type."""
    kind = "" if module is None else f" ({type(module).__name__})"
    return f"{name!r}{kind}" if name else f"the whole network{kind}"
