"""What a row trains with: networks are wrapped, or left bare, and watched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from pytorch_dni import DNI
from tests.support.hooks import fingerprint


def tensors_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name, those of this process."""
    named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: local(value) for name, value in named.items() if not is_lazy(value)}


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a distributed tensor that this process holds."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def copies(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of parameters and buffers by name."""
    return {name: value.clone() for name, value in tensors_of(network).items()}


def overwrite(network: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Give parameters and buffers other values, which no graph counts as a change."""
    for name, tensor in tensors_of(network).items():
        if not torch.equal(tensor, values[name]):
            tensor.data.copy_(values[name])


class Trained:
    """A network of a row, and what it was like before its last pass.

    Attributes:
        network: The bare network.
        net: What the row trains: the wrapper, or the bare network itself.
        before: Parameters and buffers before the last pass, or as given.
        random_state: The state of random numbers then.
        call: Arguments and keywords of the last pass; None before there is one.
        inside: Whether a pass is running, or ended by an exception.
        passes: How many passes there have been in training.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = self.net = network
        self.attributes = fingerprint(network)
        self.keys = list(network.state_dict())
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.inside = False
        self.passes = 0
        self._handles: list[RemovableHandle] = []
        self._note()

    def _note(self) -> None:
        self.before = copies(self.network)
        self.random_state = torch.get_rng_state()

    def watch(self, net: nn.Module) -> None:
        """Note every pass of this module."""
        self.net = net
        self._handles = [
            net.register_forward_pre_hook(_Begin(self), with_kwargs=True),
            net.register_forward_hook(_End(self), with_kwargs=True),
        ]

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note that a pass begins."""
        if self.net.training and torch.is_grad_enabled():
            self._note()
            detached = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
            self.call, self.inside = detached, True
            self.passes += 1

    def end(self) -> None:
        """Note that a pass ends."""
        self.inside = False

    def unwatch(self) -> None:
        """Remove the hooks of this object."""
        for handle in self._handles:
            handle.remove()


class _Begin:
    def __init__(self, trained: Trained) -> None:
        self._trained = trained

    def __deepcopy__(self, memo: object) -> _Nothing:
        return _Nothing()

    def __reduce__(self) -> tuple[type[_Nothing], tuple[()]]:
        return _Nothing, ()

    @torch.compiler.disable
    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._trained.begin(args, kwargs)


class _End(_Begin):
    @torch.compiler.disable
    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._trained.end()


class _Nothing:
    """Takes the place of a hook in copies of a network."""

    def __call__(self, *call: Any) -> None:
        pass


class Session:
    """One run of a row.

    Args:
        options: Arguments of ``DNI`` of a way; None leaves the networks bare.
        folder: A folder for files.
    """

    def __init__(self, options: Mapping[str, Any] | None, folder: Path) -> None:
        self._options = options
        self.folder = folder
        self.trained: list[Trained] = []

    def wrap(self, network: nn.Module, optim: Optimizer | None = None, **options: Any) -> Any:
        """Return a network wrapped as the run asks, with further options of the row."""
        trained = Trained(network)
        self.trained.append(trained)
        net = network
        if self._options is not None:
            net = DNI(network, optim=optim, **{**options, **self._options})
        trained.watch(net)
        return net
