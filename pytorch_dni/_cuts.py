"""The register of a network's cuts: hooks put in and taken out, gradients answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import nn, Tensor
from torch.utils.hooks import RemovableHandle

from ._first_run import FirstRun
from ._hooks import GradientHook, OutputHook
from ._learner import Learner
from ._probe import Probe, Site
from ._recipe import Recipe
from ._tree import first_activation
from .context import Context, current_context
from .errors import CheckpointError
from .interfaces.backward import BackwardInterface

BPLambda: TypeAlias = "float | Callable[[int], float]"


class Cuts:
    """Where a network is cut, and the interfaces that stand there.

    Args:
        network: The network.
        probe: Places the cuts from a first run; None where the whole network is one part.
        recipe: Makes the synthesizers.
        learner: Trains them.
    """

    def __init__(
        self, network: nn.Module, probe: Probe | None, recipe: Recipe, learner: Learner
    ) -> None:
        self.network = network
        self.learner = learner
        self.bp_lambda: BPLambda = 0.0
        self.interfaces: dict[str, BackwardInterface] = {}
        self.copied: set[str] = set()
        self.first_run = None if probe is None else FirstRun(self, probe)
        self._recipe = recipe
        self._sites: dict[str, Site] = {"": Site("", "")} if probe is None else {}
        self._likes: dict[str, tuple[list[int], str]] = {}
        self._handles: list[RemovableHandle] = []
        self._closed = False

    def register(self) -> None:
        """Put hooks into the network: those of the cuts, or of a first run to place them."""
        if self._handles or self._closed:
            return
        if self.first_run is not None:
            self._handles = self.first_run.register()
            return
        for name in self._sites:
            module = self.network.get_submodule(name)
            self._handles.append(module.register_forward_hook(OutputHook(self, name)))

    def remove(self) -> None:
        """Take the hooks out of the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def close(self) -> None:
        """Take everything out, for good."""
        self.remove()
        self._closed = True
        self.first_run = None
        self.interfaces.clear()
        self.learner.close()

    def install(self, sites: Iterable[Site]) -> None:
        """Cut at these places from now on."""
        self._sites = {site.name: site for site in sites}
        self.first_run = None
        if self._handles:
            self.remove()
            self.register()

    def build(self, site: Site, output: Tensor) -> BackwardInterface:
        """An interface for a place, not yet in use."""
        module = self.network.get_submodule(site.name)
        return self._recipe.build(site, module, self.network.get_submodule(site.source), output)

    def add(self, interface: BackwardInterface, output: Tensor) -> None:
        """Take an interface into use."""
        self.interfaces[interface.name] = interface
        self._likes[interface.name] = ([*output.shape], str(output.dtype).removeprefix("torch."))
        self.learner.add(interface)

    def learning(self) -> bool:
        """Whether a forward pass run now is one of training."""
        return self.network.training and torch.is_grad_enabled()

    def attach(self, name: str, output: Any) -> None:
        """A cut module ran: see to it that its gradient comes by.

        Raises:
            ContextError: The context is missing, unexpected or of a wrong shape.
        """
        if not self.learning():
            return
        activation = first_activation(output)
        if activation is None or not activation.requires_grad:
            return
        context = current_context()
        interface = self.interfaces.get(name)
        first = interface is None
        if interface is None:
            interface = self.build(self._sites[name], activation)
        interface.check(activation, context)
        if first:
            self.add(interface, activation)
        copy = first or name in self.copied
        activation.register_hook(GradientHook(self, name, activation, context, copy))

    def receive(
        self, name: str, trigger: Tensor, context: Context | None, grad: Tensor
    ) -> Tensor | None:
        """The true gradient has reached a cut: train towards it, hand on the synthetic one.

        Returns:
            ``(1 - lambda) * synthetic + lambda * true``, the BP(lambda) mix; None leaves the true
            gradient as it is. Jaderberg et al. 2017, section 2.1, bootstrapped: what comes to the
            cut is itself built on the synthetic gradients of later cuts.
        """
        if self.first_run is not None:
            self.first_run.end()
        interface = self.interfaces.get(name)
        if interface is None:
            return None
        with torch.no_grad():
            prediction = interface.predict(trigger, context)
            self.learner.collect(prediction.learn(grad.detach().to(interface.dtype)))
        bp_lambda = self.current_lambda()
        if bp_lambda == 1:
            return None
        synthetic = prediction.gradient.to(grad.dtype)
        return torch.lerp(synthetic, grad, bp_lambda) if bp_lambda else synthetic

    def current_lambda(self) -> float:
        """``bp_lambda``, asked for the present step where it is a function."""
        return self.bp_lambda(self.learner.steps) if callable(self.bp_lambda) else self.bp_lambda

    def state_dict(self) -> dict[str, Any]:
        """Cuts, synthesizers and their training, as plain data and tensors."""
        return {
            "sites": [[site.name, site.source] for site in self._sites.values()],
            "placed": self.first_run is None,
            "interfaces": {
                name: {"shape": shape, "dtype": dtype, "state": self.interfaces[name].state_dict()}
                for name, (shape, dtype) in self._likes.items()
            },
            "copied": sorted(self.copied),
            "bp_lambda": None if callable(self.bp_lambda) else float(self.bp_lambda),
            "learner": self.learner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], learner: Learner) -> None:
        """Become what was saved, with interfaces built anew and trained by a fresh ``learner``.

        Raises:
            CheckpointError: The network has no such places, or synthesizers made by this
                wrapper's arguments don't take the saved state. Nothing has changed.
        """
        sites = {name: Site(name, source) for name, source in state["sites"]}
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        built = {}
        try:
            for name, saved in state["interfaces"].items():
                dtype = getattr(torch, saved["dtype"])
                output = torch.zeros(saved["shape"], dtype=dtype, device=device)
                interface = self.build(sites[name], output)
                interface.load_state_dict(saved["state"])
                built[name] = (interface, output)
            for interface, _ in built.values():
                learner.add(interface)
            learner.load_state_dict(state["learner"])
        except (AttributeError, KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                "the checkpoint does not fit this wrapper: give DNI the network and the arguments "
                f"(layers, dni_network, sizes, grad_optim) that it was saved with. {error}"
            ) from error
        self.interfaces = {name: interface for name, (interface, _) in built.items()}
        self._likes = {
            n: ([*saved["shape"]], saved["dtype"]) for n, saved in state["interfaces"].items()
        }
        self.copied = set(state["copied"])
        if state["bp_lambda"] is not None and not callable(self.bp_lambda):
            self.bp_lambda = state["bp_lambda"]
        self.learner = learner
        if state["placed"]:
            self.install(sites.values())
