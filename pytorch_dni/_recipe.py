"""Which synthesizer a cut gets, and building it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn, Tensor
from torch.nn.modules.conv import _ConvNd

from ._probe import Site
from .errors import describe, SynthesizerError
from .interfaces.backward import BackwardInterface
from .synthesizers import Conv2d_DNI, DNI_Network, Linear_DNI, LocalLoss_DNI, RNN_DNI

SynthesizerSpec: TypeAlias = "type[nn.Module] | Callable[[str, nn.Module, Tensor], nn.Module]"


class Recipe:
    """How the wrapper makes synthesizers: its arguments of that name, checked.

    Raises:
        SynthesizerError: An argument is of a wrong kind, or one that it needs is missing.
    """

    def __init__(
        self,
        dni_network: SynthesizerSpec | None,
        dni_params: Mapping[str, Any] | None,
        hidden_size: int | None,
        context_size: int | None,
    ) -> None:
        if dni_network is not None and not callable(dni_network):
            raise SynthesizerError(
                "dni_network must be a class of synthesizers or a callable (name, module, output) "
                f"that returns one, not {type(dni_network).__name__}"
            )
        if dni_network is None and dni_params:
            raise SynthesizerError("dni_params are parameters of dni_network: give that too")
        for key, size in (("hidden_size", hidden_size), ("context_size", context_size)):
            if size is not None and (not isinstance(size, int) or size < 1):
                raise SynthesizerError(f"{key} must be a positive integer, got {size!r}")
        local = isinstance(dni_network, type) and issubclass(dni_network, LocalLoss_DNI)
        if local and context_size is None:
            raise SynthesizerError(
                f"{dni_network.__name__} predicts labels: give context_size, their number"  # type: ignore[union-attr]
            )
        self._dni_network = dni_network
        self._params = dict(dni_params or {})
        self._hidden_size = hidden_size
        self.context_size = context_size

    def build(
        self, site: Site, module: nn.Module, source: nn.Module, output: Tensor
    ) -> BackwardInterface:
        """An interface for activations like ``output``, in its place and at least float32.

        Built on the CPU from a seed of its own, so that the user's random numbers (dropout, the
        order of the data) are those of the bare network.
        """
        feature_dim = _feature_dim(source, output)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed() ^ zlib.crc32(site.name.encode()))
            synthesizer = self._synthesizer(site, module, source, output, feature_dim)
        dtype = torch.promote_types(output.dtype, torch.float32)
        return BackwardInterface(
            synthesizer.to(output.device, dtype).train(),
            name=site.name,
            feature_dim=feature_dim,
            context_size=self.context_size,
            like=torch.zeros((), dtype=dtype, device=output.device),
        )

    def _synthesizer(
        self, site: Site, module: nn.Module, source: nn.Module, output: Tensor, feature_dim: int
    ) -> nn.Module:
        kind = self._dni_network
        if kind is not None and not isinstance(kind, type):
            built = kind(site.name, module, output.detach())
            if not isinstance(built, nn.Module):
                raise SynthesizerError(
                    f"dni_network returned a {type(built).__name__} for "
                    f"{describe(site.name, module)}: it must return a module"
                )
            return built
        if kind is None:
            kind = Linear_DNI if feature_dim == -1 else Conv2d_DNI
        params = dict(self._params)
        if issubclass(kind, RNN_DNI):
            params.setdefault("batch_first", getattr(source, "batch_first", True))
        # Any module class with a synthesizer's three sizes will do.
        make = kind if issubclass(kind, DNI_Network) else DNI_Network
        shape = output.movedim(feature_dim, -1).shape
        try:
            return make.for_activation.__func__(  # type: ignore[attr-defined, no-any-return]
                kind, shape, self.context_size, self._hidden_size, **params
            )
        except TypeError as error:
            raise SynthesizerError(
                f"{kind.__name__} for {describe(site.name, module)} cannot be built with "
                f"dni_params={params}: {error}"
            ) from error


def _feature_dim(source: nn.Module, output: Tensor) -> int:
    """Where an activation has its features: -1, or 1 where they are channels."""
    if isinstance(source, _ConvNd):
        return 1 if output.dim() > len(source.kernel_size) + 1 else 0
    if isinstance(source, (nn.Linear, nn.Embedding)):
        return -1
    return 1 if output.dim() >= 4 else -1
