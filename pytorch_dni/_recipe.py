"""Which synthesizer a cut gets, and building it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, cast, TypeAlias

import torch
from torch import nn, Tensor
from torch.nn.modules.conv import _ConvNd

from ._probe import Site
from .errors import describe, DNIError, SynthesizerError
from .interfaces import BackwardInterface, BidirectionalInterface, ForwardInterface
from .recurrent import CriticInterface, Future, TemporalInterface
from .synthesizers import (
    Conv2d_DNI,
    Critic_DNI,
    DNI_Network,
    Linear_DNI,
    LocalLoss_DNI,
    RNN_DNI,
)
from .synthesizers._inputs import input_synthesizer

SynthesizerSpec: TypeAlias = "type[nn.Module] | Callable[[str, nn.Module, Tensor], nn.Module]"
ForwardSpec: TypeAlias = "Callable[[str, Tensor, Tensor], nn.Module]"
Interface: TypeAlias = "BackwardInterface | BidirectionalInterface"


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
        unlock: str = "update",
        forward_network: ForwardSpec | None = None,
    ) -> None:
        if unlock not in ("update", "full"):
            raise DNIError(f"unlock must be 'update' or 'full', not {unlock!r}")
        if forward_network is not None and (unlock != "full" or not callable(forward_network)):
            raise SynthesizerError(
                "forward_network must be a callable (name, input, output) that returns a module, "
                "and takes unlock='full'"
            )
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
        self.regresses = getattr(dni_network, "predicts", DNI_Network.predicts) != "loss"
        self.full = unlock == "full"
        self._forward_network = forward_network

    def build(
        self,
        site: Site,
        module: nn.Module,
        source: nn.Module,
        output: Tensor,
        input: Tensor | None = None,
    ) -> Interface:
        """An interface for activations like ``output``, in its place and at least float32.

        Built on the CPU from a seed of its own, so that the user's random numbers (dropout, the
        order of the data) are those of the bare network. For the full unlock ``input`` is like
        the network's.
        """
        feature_dim = _feature_dim(source, output)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed() ^ zlib.crc32(site.name.encode()))
            synthesizer = self._synthesizer(site, module, source, output, feature_dim)
            ahead = None if input is None else self._forward(site, input, output, feature_dim)
        dtype = torch.promote_types(output.dtype, torch.float32)
        # The wrapper's learner trains them, together.
        options: dict[str, Any] = {
            "optim": None,
            "name": site.name,
            "like": torch.zeros((), dtype=dtype, device=output.device),
        }
        backward = BackwardInterface(
            synthesizer.to(output.device, dtype).train(),
            feature_dim=feature_dim,
            context_size=self._context_size(synthesizer),
            **options,
        )
        if ahead is None:
            return backward
        context_size = self._context_size(ahead)
        ahead = ahead.to(output.device, dtype).train()
        return BidirectionalInterface(
            ForwardInterface(ahead, context_size=context_size, **options), backward
        )

    def build_temporal(
        self, name: str, module: nn.Module, joined: Tensor, batch_dim: int, future: Future
    ) -> TemporalInterface:
        """An interface for states like ``joined``, ``(batch, features)``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed() ^ zlib.crc32(name.encode()))
            synthesizer = self._synthesizer(Site(name, name), module, module, joined, -1)
        dtype = torch.promote_types(joined.dtype, torch.float32)
        kind = CriticInterface if isinstance(synthesizer, Critic_DNI) else TemporalInterface
        return kind(
            synthesizer.to(joined.device, dtype).train(),
            future=future,
            batch_dim=batch_dim,
            feature_dim=-1,
            context_size=self._context_size(synthesizer),
            optim=None,
            name=name,
            like=torch.zeros((), dtype=dtype, device=joined.device),
        )

    def _context_size(self, synthesizer: nn.Module) -> int | None:
        """The wrapper's, but for a synthesizer that says itself what it takes."""
        return getattr(synthesizer, "context_dim", self.context_size)

    def _forward(self, site: Site, input: Tensor, output: Tensor, feature_dim: int) -> nn.Module:
        if self._forward_network is None:
            return input_synthesizer(
                input.shape, output.shape, feature_dim, self.context_size, None
            )
        built = self._forward_network(site.name, input.detach(), output.detach())
        if not isinstance(built, nn.Module):
            raise SynthesizerError(
                f"forward_network returned a {type(built).__name__} for interface {site.name!r}: "
                "it must return a module"
            )
        return built

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
        shape = output.movedim(feature_dim, -1).shape
        try:
            if issubclass(kind, DNI_Network):
                return kind.for_activation(shape, self.context_size, self._hidden_size, **params)
            # forward(trigger, context) has the constructor of BasicSynthesizer.
            sizes = {"hidden_dim": self._hidden_size, "context_dim": self.context_size}
            given = {name: size for name, size in sizes.items() if size is not None}
            make = cast("Callable[..., nn.Module]", kind)
            return make(shape[-1], **{**given, **params})
        except TypeError as error:
            raise SynthesizerError(
                f"{kind.__name__} for {describe(site.name, module)} cannot be built with "
                f"dni_params={params}: {error}"
            ) from error


class TemporalRecipe:
    """How the wrapper makes synthesizers of states."""

    def __init__(self, recipe: Recipe, future: Future) -> None:
        self._recipe = recipe
        self._future = future

    def __call__(
        self, name: str, module: nn.Module, joined: Tensor, batch_dim: int
    ) -> TemporalInterface:
        """An interface for states like ``joined``, ``(batch, features)``."""
        return self._recipe.build_temporal(name, module, joined, batch_dim, self._future)


def _feature_dim(source: nn.Module, output: Tensor) -> int:
    """Where an activation has its features: -1, or 1 where they are channels."""
    if isinstance(source, _ConvNd):
        return 1 if output.dim() > len(source.kernel_size) + 1 else 0
    if isinstance(source, (nn.Linear, nn.Embedding)):
        return -1
    return 1 if output.dim() >= 4 else -1
