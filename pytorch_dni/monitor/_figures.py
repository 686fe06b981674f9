"""The figures of all interfaces of a network, by one flat name each."""

from __future__ import annotations

import math

from torch import nn

from ..dni import DNI

_MEASURED = ("loss", "cosine", "norm_ratio")


def wrappers(module: nn.Module) -> dict[str, DNI]:
    """Return the wrapped networks inside a module, itself included, by qualified name."""
    return {name: found for name, found in module.named_modules() if isinstance(found, DNI)}


def figures(module: nn.Module, prefix: str = "dni") -> dict[str, float]:
    """Return the figures of all interfaces, by names like ``dni/1/cosine``.

    Reading them waits for the device; do not do so in every step on a GPU.

    Args:
        module: A wrapped network, or a module that holds some. Where it holds several, or one
            further inside, the qualified name of the wrapper follows the prefix.
        prefix: First part of the names.

    Returns:
        ``loss``, ``cosine`` and ``norm_ratio`` of each interface that has been trained; those of
        predicted activations (``unlock="full"``) have ``forward/`` in front. Figures that are
        not finite are left out.
    """
    found = {}
    for wrapper_name, net in wrappers(module).items():
        for direction in ("backward", "forward"):
            for cut, stats in net.stats(direction).items():
                parts = [prefix, wrapper_name, "forward" if direction == "forward" else "", cut]
                name = "/".join(part for part in parts if part)
                for figure in _MEASURED:
                    value = float(getattr(stats, figure))
                    if math.isfinite(value):
                        found[f"{name}/{figure}"] = value
    return found
