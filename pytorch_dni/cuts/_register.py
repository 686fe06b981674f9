"""The register of a network's cuts: where they are, and the hooks that are called there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .._checkpoint import flag, reading
from .._flat import Fixed
from ..placement import CutPlan, FirstRun, merged, Part, Site
from ._compilation import CompiledParts
from ._context_fit import ContextFit
from ._errors import PassErrors
from ._factory import Interface
from ._first_pass import FirstPass
from ._hooks import check_backward_hooks, Handles, innermost
from ._inputs import ForwardInputs
from ._interface_set import InterfaceSet
from ._late import LateLayers
from ._methods import check_backward_mode, CutMethod, HookCuts
from ._places import CutPlaces
from ._reached import ReachedCuts


class Cuts:
    """The cuts of a network, and the hooks that pass activations across them.

    Args:
        network: The network.
        first_run: Plans the cuts from a forward pass; None where the sites are known.
        sites: The sites, where they are known.
        interfaces: The interfaces at the cuts.
        fit: Checks the context at the cuts.
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
        fit: ContextFit,
        inputs: ForwardInputs,
        errors: PassErrors,
        method: CutMethod,
        first_pass: HookCuts,
    ) -> None:
        self._network = network
        self._places = CutPlaces.at(sites)
        self._interfaces = interfaces
        self._fit = fit
        self._inputs = inputs
        self._errors = errors
        self._method = method
        self._reached = ReachedCuts()
        self._late: LateLayers | None = None
        self._first_pass: FirstPass | None = None
        if first_run is not None:
            self._late = LateLayers(network, first_run, method, self._add_late_sites)
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
        return merged(self._places.parts, self._fit.passed_over)

    def describe(self) -> list[str]:
        """Return lines on what a user may not expect of the cuts."""
        source = [name for name in self._places.sites if self._errors.is_source(name)]
        return self._places.describe([*self._interfaces.by_name, *source, *self._fit.passed_over])

    def register(self) -> None:
        """Register the hooks: those of the cuts, or those of a first pass that places them."""
        if self._handles or self._closed:
            self._handles.show()
            return
        handles, network = self._handles, self._network
        if self._first_pass is not None:
            handles.before_forward(network, self._begin_first_pass)
            self._first_pass.register(handles)
            return
        whole = innermost(network)
        needs_whole = self._method.needs_whole_pass or self._errors.place is not None
        if needs_whole:
            handles.before_forward(whole, self._begin_pass)
        for name in self._places.sites:
            handles.after_forward(network.get_submodule(name), self._pass_cut, name)
        if self._late is not None:
            self._late.register(handles)
        if needs_whole:
            handles.after_forward(whole, self._end_pass, always=True)

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
        if self._late is not None:
            self._late.drop()

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
            self._compile_parts()

    def place_by_example(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], example: bool = True
    ) -> None:
        """Place the cuts, and build their interfaces, from a pass on example input.

        ``example`` is false where the input is that of a pass of training.

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
            self._apply_plan(self._first_pass.trace(args, kwargs, example), example=True)
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
            self.place_by_example(args, kwargs, example=False)
            self._begin_pass(module, args, kwargs)
        else:
            self._first_pass.begin(args, kwargs)

    def _apply_plan(self, plan: CutPlan, example: bool) -> Mapping[str, Interface]:
        seen = plan.activations.items()
        activations = {name: a for name, a in seen if example or a.requires_grad}
        built, place = self._interfaces.build_all(plan.sites, activations, plan.error)
        # Activations on the meta device have no values: a later pass builds their interfaces.
        built = {name: i for name, i in built.items() if not activations[name].is_meta}
        if not example:
            built = self._fit.fitting(built, activations, place)
        self._interfaces.add_all(built, activations)
        self._set_places(CutPlaces.of(plan), plan.idle)
        self._errors.set_place(place)
        return built

    def _set_places(self, places: CutPlaces, idle: Iterable[str]) -> None:
        self._places = places
        self._end_first_pass()
        if self._late is not None:
            self._late.wait_for(idle)
        self._compile_parts()

    def _add_late_sites(self, sites: Iterable[Site]) -> None:
        for site in sites:
            self._places.sites.setdefault(site.name, site)
        self._compile_parts()
        self._register_anew()

    def _compile_parts(self) -> None:
        if self._compiled is not None:
            waiting = set() if self._late is None else self._late.names
            self._compiled.apply({*self._places.sites} | waiting)

    def _end_first_pass(self) -> None:
        if self._first_pass is not None:
            self._first_pass.end_for_good()
            self._first_pass = None

    def _learning(self) -> bool:
        return self._network.training and torch.is_grad_enabled()

    def _begin_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._learning():
            if self._method.needs_whole_pass:
                check_backward_mode(type(self._network).__name__)
            self._inputs.begin(args, kwargs)
            self._errors.begin()
            self._method.begin(args, kwargs)

    def _pass_cut(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        context = self._inputs.context()
        if not self._learning():
            return None
        is_source = self._errors.is_source(name)
        # Behind detached cuts, frozen layers return activations that ask for no gradient.
        needed = is_source and self._method.waits_for_error
        activation = self._reached.activation(name, module, output, needed)
        if activation is None or name in self._fit.passed_over:
            return None
        if is_source:
            passed = self._method.pass_source(activation)
            return self._reached.replaced(output, activation, passed)
        if self._method.detaches:
            check_backward_hooks(self._network, name)
        interface = self._fit.interface(self._places.sites[name], activation, self._errors)
        if interface is None:
            return None
        passed = self._method.pass_cut(name, interface, activation, context)
        return self._reached.replaced(output, activation, passed)

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
            **self._places.state_dict(self._late.names if self._late is not None else ()),
            "placed": Fixed(self.placed),
            "passed_over": self._fit.state_dict(),
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
        places, idle = CutPlaces.read(state, self._network)
        with reading("what is at the cuts"):
            placed = flag(state["placed"])
            load_fit = self._fit.prepare_load(state["passed_over"], places.sites)
            place, load_place = self._errors.prepare_load(state["error"], places.sites)
        interfaces, load_interfaces = self._interfaces.prepare_load(state, places.sites, place)

        def load() -> None:
            load_interfaces()
            load_fit()
            load_place()
            self._places = places
            if placed:
                self._set_places(places, idle)
                self._register_anew()

        return interfaces, load
