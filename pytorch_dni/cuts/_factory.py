"""Which synthesizer a cut gets, and how it is built."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast, TypeAlias

import torch
from torch import nn, Tensor

from ..errors import describe, DNIError, SynthesizerDefectError, SynthesizerError
from ..interfaces import BackwardInterface, BidirectionalInterface, ForwardInterface
from ..placement import ErrorPlace, Site
from ..placement import feature_dim as find_feature_dim
from ..synthesizers import (
    Conv2d_DNI,
    DNI_Network,
    Feedback_DNI,
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    RNN_DNI,
)
from ..synthesizers._error_maps import error_map
from ..synthesizers._from_input import input_synthesizer

SynthesizerSpec: TypeAlias = "type[nn.Module] | Callable[[str, nn.Module, Tensor], nn.Module]"
ForwardSpec: TypeAlias = "Callable[[str, Tensor, Tensor], nn.Module]"
Interface: TypeAlias = "BackwardInterface | BidirectionalInterface"


class SynthesizerFactory:
    """Builds synthesizers and interfaces from the wrapper's arguments of the same names.

    Args:
        dni_network: A class of synthesizers, or a callable ``(name, module, output) -> module``.
        dni_params: Further parameters of that class.
        hidden_size: Width of the synthesizers.
        context_size: Width of the context.
        unlock: ``"backward"`` to give synthesizers the error, ``"update"``, or ``"full"`` to
            predict activations too.
        forward_network: Builds the synthesizers of activations, ``(name, input, output) ->
            module``; only with ``unlock="full"``.

    Attributes:
        context_size: Width of the context; None for no context.
        regresses: Whether the synthesizers regress to the true gradient.
        predicts_activations: Whether activations are predicted as well: the full unlock.
        may_take_error: Whether synthesizers can be given the error: the backward unlock.
        takes_error: Whether their class takes it; a callable shows it with what it builds.

    Raises:
        DNIError: An argument is of a wrong kind, or one that it needs is missing.
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
        _check_forward(unlock, forward_network)
        _check_synthesizer(dni_network, dni_params, context_size)
        for key, size in (("hidden_size", hidden_size), ("context_size", context_size)):
            if size is not None and (not isinstance(size, int) or size < 1):
                raise SynthesizerError(f"{key} must be a positive integer, got {size!r}")
        self._dni_network = dni_network
        self._params = dict(dni_params or {})
        self._hidden_size = hidden_size
        self.context_size = context_size
        self.may_take_error = unlock == "backward"
        self.takes_error = self.may_take_error and (
            dni_network is None
            or (isinstance(dni_network, type) and class_takes_error(dni_network, self._params))
        )
        self.regresses = getattr(dni_network, "predicts", DNI_Network.predicts) != "loss"
        self.predicts_activations = unlock == "full"
        self._forward_network = forward_network

    def build(
        self,
        site: Site,
        module: nn.Module,
        source: nn.Module,
        output: Tensor,
        input: Tensor | None = None,
        error: ErrorPlace | None = None,
    ) -> Interface:
        """Build an interface, on the activation's device and in at least float32.

        Args:
            site: The site of the cut.
            module: The module whose output is cut.
            source: The layer that computes the features.
            output: An activation at the cut.
            input: An input of the network, for the full unlock; otherwise None.
            error: Where the error is taken, if it is.

        Raises:
            SynthesizerError: No synthesizer can be built from the user's arguments.
        """
        feature_dim = find_feature_dim(source, output)
        with own_random_numbers(site.name):
            synthesizer = self.synthesizer(
                site.name, module, source, output, feature_dim, error=error, in_space=True
            )
            ahead = None if input is None else self._forward(site, input, output, feature_dim)
        options = self.options(site.name, synthesizer, output)
        backward = BackwardInterface(
            synthesizer.to(options["like"]).train(), feature_dim=feature_dim, **options
        )
        if error is None:
            backward.runner.check_needs_no_error()
        if ahead is None:
            return backward
        options = self.options(site.name, ahead, output)
        forward = ForwardInterface(ahead.to(options["like"]).train(), **options)
        return BidirectionalInterface(forward, backward)

    def options(self, name: str, synthesizer: nn.Module, output: Tensor) -> dict[str, Any]:
        """Return the arguments that all interfaces of the wrapper share.

        A synthesizer that has a ``context_dim`` keeps it. The wrapper's learner trains all
        synthesizers together, so that interfaces get no optimizer of their own.
        """
        dtype = torch.promote_types(output.dtype, torch.float32)
        return {
            "optim": None,
            "name": name,
            "context_size": getattr(synthesizer, "context_dim", self.context_size),
            "like": torch.zeros((), dtype=dtype, device=output.device),
        }

    def synthesizer(
        self,
        name: str,
        module: nn.Module,
        source: nn.Module,
        output: Tensor,
        feature_dim: int,
        *,
        error: ErrorPlace | None = None,
        in_space: bool = False,
    ) -> nn.Module:
        """Build a synthesizer for activations like ``output``.

        Raises:
            SynthesizerError: The user's class or callable does not give one.
        """
        kind = self._dni_network
        if kind is not None and not isinstance(kind, type):
            at = describe(name, module)
            return _called("dni_network", at, partial(kind, name, module, output.detach()))
        shape = output.movedim(feature_dim, -1).shape
        if kind is None:
            kind = self._default_kind(shape, feature_dim, error, in_space)
        params = self._class_params(kind, name, source, error)
        try:
            return self._instance(kind, shape, params)
        except DNIError:
            raise
        except Exception as reason:
            own = not isinstance(reason, TypeError)
            raise (SynthesizerDefectError if own else SynthesizerError)(
                f"{kind.__name__} for {describe(name, module)} cannot be built with "
                f"dni_params={params}: {type(reason).__name__}: {reason}"
            ) from reason

    def _class_params(
        self, kind: type[nn.Module], name: str, source: nn.Module, error: ErrorPlace | None
    ) -> dict[str, Any]:
        """Return the user's parameters of a class, and those that the place of the cut tells."""
        params = dict(self._params)
        if issubclass(kind, RNN_DNI):
            params.setdefault("batch_first", getattr(source, "batch_first", True))
        if issubclass(kind, Feedback_DNI) and error is not None:
            params.setdefault("identity", name in error.residual)
        if class_takes_error(kind, params):
            params["error_shape"] = None if error is None else torch.Size(error.shape)
        return params

    def _default_kind(
        self, shape: torch.Size, feature_dim: int, error: ErrorPlace | None, in_space: bool
    ) -> type[DNI_Network]:
        if error is not None and error_map(error.shape, shape, 1, False) is not None:
            return Feedback_DNI
        if in_space and self.context_size is not None:
            return LocalError_DNI
        return Linear_DNI if feature_dim == -1 else Conv2d_DNI

    def _instance(
        self, kind: type[nn.Module], shape: torch.Size, params: dict[str, Any]
    ) -> nn.Module:
        if issubclass(kind, DNI_Network):
            return kind.for_activation(shape, self.context_size, self._hidden_size, **params)
        # A class with forward(trigger, context) has the constructor of BasicSynthesizer.
        sizes = {"hidden_dim": self._hidden_size, "context_dim": self.context_size}
        given = {name: size for name, size in sizes.items() if size is not None}
        make = cast("Callable[..., nn.Module]", kind)
        return make(shape[-1], **{**given, **params})

    def _forward(self, site: Site, input: Tensor, output: Tensor, feature_dim: int) -> nn.Module:
        if self._forward_network is None:
            return input_synthesizer(
                input.shape, output.shape, feature_dim, self.context_size, None
            )
        make = partial(self._forward_network, site.name, input.detach(), output.detach())
        return _called("forward_network", f"interface {site.name!r}", make)


def _called(argument: str, at: str, make: Callable[[], object]) -> nn.Module:
    """Return the module that a callable of the user's makes.

    Raises:
        SynthesizerError: It raised, or returned something else.
    """
    try:
        built = make()
    except DNIError:
        raise
    except Exception as reason:
        raise SynthesizerDefectError(
            f"{argument} raised {type(reason).__name__} for {at}: {reason}"
        ) from reason
    if isinstance(built, nn.Module):
        return built
    kind = type(built).__name__
    found = f"the class {built.__name__}" if isinstance(built, type) else f"a {kind}"
    raise SynthesizerError(f"{argument} returned {found} for {at}: it must return a module")


def class_takes_error(kind: type, params: Mapping[str, Any]) -> bool:
    """Return whether a class of synthesizers takes the error, with these parameters."""
    given = params.get("takes_error", getattr(kind, "takes_error", False))
    return bool(given) or getattr(kind, "predicts", None) == "feedback"


def takes_error(interface: Interface) -> bool:
    """Return whether the synthesizer of an interface takes the error."""
    return isinstance(interface, BackwardInterface) and interface.takes_error


@contextmanager
def own_random_numbers(name: str) -> Iterator[None]:
    """Draw random numbers on the CPU from a seed of their own, which depends on a name.

    So the user's random numbers (dropout, the order of the data) are those of the bare network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() ^ zlib.crc32(name.encode()))
        yield


def _check_forward(unlock: str, forward_network: ForwardSpec | None) -> None:
    if unlock not in ("backward", "update", "full"):
        raise DNIError(f"unlock must be 'backward', 'update' or 'full', not {unlock!r}")
    if forward_network is not None and (unlock != "full" or not callable(forward_network)):
        raise SynthesizerError(
            "forward_network must be a callable (name, input, output) that returns a module, "
            "and takes unlock='full'"
        )


def _check_synthesizer(
    dni_network: SynthesizerSpec | None,
    dni_params: Mapping[str, Any] | None,
    context_size: int | None,
) -> None:
    if dni_network is not None and not callable(dni_network):
        raise SynthesizerError(
            "dni_network must be a class of synthesizers or a callable (name, module, output) "
            f"that returns one, not {type(dni_network).__name__}"
        )
    if dni_network is None and dni_params:
        raise SynthesizerError("dni_params are parameters of dni_network: give that too")
    local = isinstance(dni_network, type) and issubclass(dni_network, LocalLoss_DNI)
    if local and context_size is None:
        raise SynthesizerError(
            f"{dni_network.__name__} predicts labels: give context_size, their number"  # type: ignore[union-attr]
        )
