"""The interfaces at the end of a part: synthetic gradients now, lessons later."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast, NamedTuple, TypeAlias

import torch
from torch import nn, Tensor

from ..context import Context
from ..errors import SynthesizerError
from ..interfaces import BackwardInterface, OutputError
from ..interfaces._gradient_crossing import CutPolicy
from ..synthesizers import (
    Conv2d_DNI,
    DNI_Network,
    Feedback_DNI,
    Linear_DNI,
    LocalError_DNI,
)

SynthesizerSpec: TypeAlias = (
    "type[nn.Module] | nn.Module | Callable[[str, Tensor], nn.Module] | None"
)
_LATER = CutPolicy(part_learns=False)
_random_numbers = threading.Lock()  # all threads of a process draw from one generator


@contextmanager
def seeded(name: str) -> Iterator[None]:
    """Draw random numbers from a seed of their own, which depends on a name.

    The random numbers of the network stay those without a pipeline.
    """
    with _random_numbers, torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() ^ zlib.crc32(name.encode()))
        yield


class SynthesizerOptions(NamedTuple):
    """What the user says about synthesizers.

    Attributes:
        synthesizer: A class, a callable ``(name, output) -> module``, a synthesizer or an interface
            for the only output, or None for a default.
        params: Further parameters of a class.
        context_size: Width of the context.
        feature_dim: Dimension of features or channels; None finds it.
        error_shape: Shape of the error at the network's output; None where there is none.
    """

    synthesizer: SynthesizerSpec
    params: Mapping[str, Any]
    context_size: int | None
    feature_dim: int | None
    error_shape: torch.Size | None = None

    def build(self, name: str, output: Tensor) -> BackwardInterface:
        """Build the interface for an output.

        Raises:
            SynthesizerError: None can be built.
        """
        made = self.synthesizer
        if isinstance(made, BackwardInterface):
            return made
        dim = self.feature_dim
        if dim is None:
            dim = 1 if output.dim() in (4, 5) else -1
        if not isinstance(made, nn.Module):
            made = self._seeded(name, output, dim)
        own = getattr(made, "context_dim", None)
        size = self.context_size if own is None else own
        interface = BackwardInterface(
            made.to(output.device), context_size=size, feature_dim=dim, name=name
        )
        return interface.to(output.device)

    def _seeded(self, name: str, output: Tensor, dim: int) -> nn.Module:
        with seeded(name):
            made = self._made(name, output, dim)
        if not isinstance(made, nn.Module):
            raise SynthesizerError(
                f"synthesizer returned {type(made).__name__} for {name}: it must return a module"
            )
        return made

    def _made(self, name: str, output: Tensor, dim: int) -> object:
        kind, shape = self.synthesizer, output.movedim(dim, -1).shape
        if kind is None:
            kind = self._default(dim)
        if not isinstance(kind, type):
            assert not isinstance(kind, nn.Module)
            return kind(name, output.detach())
        if not issubclass(kind, DNI_Network):
            given = {} if self.context_size is None else {"context_dim": self.context_size}
            make = cast("Callable[..., nn.Module]", kind)
            return make(shape[-1], **{**given, **self.params})
        params = dict(self.params)
        if issubclass(kind, Feedback_DNI) or params.get("takes_error", kind.takes_error):
            params["error_shape"] = self.error_shape
        return kind.for_activation(shape, self.context_size, None, **params)

    def _default(self, dim: int) -> type[DNI_Network]:
        if self.error_shape is not None:
            return Feedback_DNI
        if self.context_size is not None:
            return LocalError_DNI
        return Linear_DNI if dim == -1 else Conv2d_DNI


class Cut:
    """The interfaces at the outputs of a part, one for each output that takes a gradient.

    Args:
        interfaces: By the position of the output.
        count: Number of outputs.
    """

    def __init__(self, interfaces: Mapping[int, BackwardInterface], count: int) -> None:
        self.interfaces = dict(interfaces)
        self._count = count

    @property
    def needs_true(self) -> bool:
        """Whether a synthesizer learns from true gradients, which have to be sent back."""
        kinds = (getattr(i.synthesizer, "predicts", "") for i in self.interfaces.values())
        return any(kind != "loss" for kind in kinds)

    @property
    def takes_context(self) -> bool:
        """Whether a synthesizer takes the context."""
        return any(i.context_size is not None for i in self.interfaces.values())

    def predict(
        self, outputs: Sequence[Tensor], context: Context | None, error: OutputError | None = None
    ) -> list[Tensor | None]:
        """Return a synthetic gradient for each output; local losses learn at once.

        Raises:
            ContextError: The context is missing or does not fit.
        """
        grads: list[Tensor | None] = [None] * self._count
        for index, interface in self.interfaces.items():
            trigger = outputs[index].detach()
            own = context if interface.runner.takes_context else None
            interface.check(trigger, own)
            interface.try_once(trigger, own, error)
            local = getattr(interface.synthesizer, "predicts", "") == "loss"
            if local or interface.takes_error:
                grads[index] = interface.exchange(trigger, own, None, CutPolicy(), error)
            else:
                with torch.no_grad():
                    grads[index] = interface.predict(trigger, own).message.to(trigger.dtype)
        return grads

    def learn(
        self,
        outputs: Sequence[Tensor],
        context: Context | None,
        true: Sequence[Tensor | None],
        error: OutputError | None = None,
    ) -> None:
        """Learn from the true gradients of outputs; None where an output was not used."""
        for index, interface in self.interfaces.items():
            grad, own = true[index], context if interface.runner.takes_context else None
            if grad is not None:
                trigger = outputs[index].detach()
                interface.exchange(trigger, own, grad.to(trigger.device), _LATER, error)
