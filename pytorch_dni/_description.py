"""What a wrapper says of itself: its parts as a table, and the lines that ``print`` shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from .cuts import Interface
from .interfaces import BidirectionalInterface
from .placement import Part, parts_table


def describe(
    parts: Sequence[Part], interfaces: Mapping[str, Interface], unlock: str, notes: Iterable[str]
) -> str:
    """Return the parts as a table, the unlock level and the notes.

    Args:
        parts: The parts of the network.
        interfaces: The interfaces, by the name of their cut.
        unlock: The unlock level.
        notes: Further lines.
    """
    synthesizers = {
        name: (type(_synthesizer(interface)).__name__, _parameters(interface))
        for name, interface in interfaces.items()
    }
    return "\n".join([parts_table(parts, synthesizers), f"unlock: {unlock}", *notes])


def summary(interfaces: Mapping[str, Interface], unlock: str, placed: bool) -> str:
    """Return a line for the unlock level, and one for each cut, with its synthesizer.

    Args:
        interfaces: The interfaces, by the name of their cut.
        unlock: The unlock level.
        placed: Whether the cuts are known.
    """
    lines = [f"unlock={unlock!r}"]
    if not placed and not interfaces:
        lines.append("cuts: placed in the first forward pass in training")
    for name, interface in interfaces.items():
        kind = type(_synthesizer(interface)).__name__
        lines.append(
            f"cut after {name or 'the network'}: {kind}, {_parameters(interface):,} parameters"
        )
    return "\n".join(lines)


def _synthesizer(interface: Interface) -> nn.Module:
    if isinstance(interface, BidirectionalInterface):
        interface = interface.backward_interface
    return interface.synthesizer


def _parameters(interface: Interface) -> int:
    return sum(p.numel() for module, _ in interface.trained() for p in module.parameters())
