"""The register of a network's cuts: where they are, and the hooks that are called there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor

from .._checkpoint import flag, listed, reading, text
from .._tensors import Fixed
from .._tree import first_activation, map_floating
from ..errors import CheckpointError
from ..placement import CutPlan, FirstRun, Part, Site
from ._compilation import CompiledParts
from ._errors import PassErrors
from ._factory import Interface
from ._first_pass import FirstPass
from ._hooks import Handles
from ._inputs import ForwardInputs
from ._interface_set import InterfaceSet
from ._methods import CutMethod, HookCuts


class Cuts:
    """The cuts of a network, and the hooks that pass activations across them.

    Args:
        network: The network.
        first_run: Plans the cuts from a forward pass; None where the sites are known.
        sites: The sites, where they are known.
        interfaces: The interfaces at the cuts.
        inputs: The inputs of the forward pass.
        errors: Takes the error of each forward pass.
        method: Passes activations and gradients across the cuts.
        first_pass: Does so in a first pass of training, before the cuts are known.
    """

    def __init__(
        self,
        network: nn.Module,
        first_run: FirstRun | None,
        sites: Iterable[Site],
        interfaces: InterfaceSet,
        inputs: ForwardInputs,
        errors: PassErrors,
        method: CutMethod,
        first_pass: HookCuts,
    ) -> None:
        self._network = network
        self._sites = {site.name: site for site in sites}
        self._parts: list[Part] = []
        self._interfaces = interfaces
        self._inputs = inputs
        self._errors = errors
        self._method = method
        self._first_pass: FirstPass | None = None
        if first_run is not None:
            shared = (inputs, errors, first_pass)
            self._first_pass = FirstPass(network, first_run, *shared, self._place_by_pass)
        self._compiled: CompiledParts | None = None
        self._handles = Handles()
        self._closed = False

    @property
    def placed(self) -> bool:
        """Whether the sites of the cuts are known."""
        return self._first_pass is None

    @property
    def parts(self) -> Sequence[Part]:
        """The parts between the cuts, as the first pass showed them."""
        return self._parts

    def register(self) -> None:
        """Register the hooks: those of the cuts, or those of a first pass that places them."""
        if self._handles or self._closed:
            return
        handles, network = self._handles, self._network
        if self._first_pass is not None:
            handles.before_forward(network, self._begin_first_pass)
            self._first_pass.register(handles)
            return
        whole = self._method.needs_whole_pass or self._errors.place is not None
        if whole:
            handles.before_forward(network, self._begin_pass)
        for name in self._sites:
            handles.after_forward(network.get_submodule(name), self._pass_cut, name)
        if whole:
            handles.after_forward(network, self._end_pass, always=True)

    def _register_anew(self) -> None:
        if self._handles:
            self._handles.remove()
            self.register()

    def detach_hooks(self) -> None:
        """Remove the hooks, and release what the last forward pass was given."""
        self._handles.remove()
        self.drop_pass()
        self._inputs.forget()

    def drop_pass(self) -> None:
        """Drop the running forward pass."""
        self._method.cancel()
        self._inputs.end()
        if self._first_pass is not None:
            self._first_pass.drop()

    def close(self) -> None:
        """Remove everything from the network, finally."""
        self.detach_hooks()
        self._closed = True
        self._end_first_pass()
        if self._compiled is not None:
            self._compiled.remove()
        self._interfaces.clear()

    def compile(self, options: dict[str, Any]) -> None:
        """Compile the modules between the cuts, as soon as the cuts are known."""
        if self._compiled is not None:
            self._compiled.remove()
        self._compiled = CompiledParts(self._network, options)
        if self.placed:
            self._compiled.apply(self._sites)

    # Placing the cuts.

    def place_by_example(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Place the cuts, and build their interfaces, from a pass on example input.

        Raises:
            DNIError: There is no place to cut, or a synthesizer cannot be built. Nothing has
                changed.
        """
        if self._first_pass is None:
            return
        registered = bool(self._handles)
        self._handles.remove()
        try:
            self._inputs.begin(args, kwargs)
            self._apply_plan(self._first_pass.trace(args, kwargs), example=True)
        finally:
            self._inputs.forget()
            if registered:
                self.register()

    def _place_by_pass(self, plan: CutPlan) -> Mapping[str, Interface]:
        built = self._apply_plan(plan, example=False)
        self._register_anew()
        return built

    def _begin_first_pass(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        assert self._first_pass is not None
        if self._first_pass.needs_trace and self._learning():
            # The graph has to be seen before any part learns: the first input is the example.
            self.place_by_example(args, kwargs)
            self._begin_pass(module, args, kwargs)
        else:
            self._first_pass.begin(args, kwargs)

    def _apply_plan(self, plan: CutPlan, example: bool) -> Mapping[str, Interface]:
        activations = {
            site.name: plan.activations[site.name]
            for site in plan.sites
            if site.name in plan.activations
            and (example or plan.activations[site.name].requires_grad)
        }
        built, place = self._interfaces.build_all(plan.sites, activations, plan.error)
        if not example:
            for name, interface in built.items():
                self._interfaces.check(interface, activations[name])
        self._parts = plan.parts
        self._set_sites(plan.sites)
        self._errors.set_place(place)
        for name, interface in built.items():
            self._interfaces.add(interface, name, activations[name])
        return built

    def _set_sites(self, sites: Iterable[Site]) -> None:
        self._sites = {site.name: site for site in sites}
        self._end_first_pass()
        if self._compiled is not None:
            self._compiled.apply(self._sites)

    def _end_first_pass(self) -> None:
        if self._first_pass is not None:
            self._first_pass.end_for_good()
            self._first_pass = None

    # Every further pass.

    def _learning(self) -> bool:
        return self._network.training and torch.is_grad_enabled()

    def _begin_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._learning():
            self._inputs.begin(args, kwargs)
            self._errors.begin()
            self._method.begin(args, kwargs)

    def _pass_cut(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        context = self._inputs.context()
        if not self._learning():
            return None
        activation = first_activation(output)
        if activation is None or not activation.requires_grad:
            return None
        if self._errors.is_source(name):
            return _replaced(output, activation, self._method.pass_source(activation))
        interface = self._interfaces.get(name)
        known = interface is not None
        if interface is None:
            interface = self._interfaces.build(
                self._sites[name], activation, error=self._errors.place
            )
        self._interfaces.check(interface, activation)
        if not known:
            self._interfaces.add(interface, name, activation)
        passed = self._method.pass_cut(name, interface, activation, context)
        return _replaced(output, activation, passed)

    def _end_pass(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        self._inputs.end()
        if not self._learning():
            self._method.cancel()
            return None
        replaced = self._method.end(output)
        return None if replaced is output else replaced

    # Checkpoints.

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return {
            "sites": Fixed([[*site] for site in self._sites.values()]),
            "placed": Fixed(self.placed),
            "parts": [part.state_dict() for part in self._parts],
            "error": self._errors.state_dict(),
            **self._interfaces.state_dict(),
        }

    def prepare_load(
        self, state: Mapping[str, Any]
    ) -> tuple[dict[str, Interface], Callable[[], None]]:
        """Build the interfaces of a saved state, and return them with a function to load them.

        Nothing has changed until that function is called; it cannot fail.

        Raises:
            CheckpointError: The state does not fit the network or the wrapper's arguments.
        """
        with reading("the list of cuts"):
            sites = {text(name): Site(name, text(source)) for name, source in state["sites"]}
            parts = [Part.from_state(part) for part in listed(state["parts"])]
            placed = flag(state["placed"])
            place, load_place = self._errors.prepare_load(state["error"])
            taken = {"" if place is None else place.cut or "", *(part.cut for part in parts)}
            if not taken <= {"", *sites}:
                raise ValueError(f"{taken - {'', *sites}} are no cuts")
        known = {name for name, _ in self._network.named_modules(remove_duplicate=False)}
        for site in sites.values():
            if not known.issuperset(site):
                raise CheckpointError(
                    f"the checkpoint does not fit this wrapper: it has a cut at {site.name!r}, "
                    "which is no module of this network: give DNI the network it was saved with"
                )
        interfaces, load_interfaces = self._interfaces.prepare_load(state, sites, place)

        def load() -> None:
            load_interfaces()
            load_place()
            self._parts = parts
            if placed:
                registered = bool(self._handles)
                self._handles.remove()
                self._set_sites(sites.values())
                if registered:
                    self.register()

        return interfaces, load


def _replaced(output: Any, activation: Tensor, passed: Tensor | None) -> Any:
    """Return an output with another tensor in the place of its activation; None for no change."""
    if passed is None:
        return None
    return map_floating(output, lambda tensor: passed if tensor is activation else tensor)
