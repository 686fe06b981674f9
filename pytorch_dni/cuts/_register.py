"""The register of a network's cuts: where they are, and the hooks that are called there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from .._checkpoint import number, reading, text
from .._tree import first_activation, map_floating
from ..context import Context
from ..errors import CheckpointError
from ..placement import CutPlan, FirstRun, Part, Site
from ._compilation import CompiledParts
from ._factory import Interface
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
        method: CutMethod,
        first_pass: HookCuts,
    ) -> None:
        self._network = network
        self._first_run = first_run
        self._sites = {site.name: site for site in sites}
        self._parts: list[Part] = []
        self._interfaces = interfaces
        self._inputs = inputs
        self._method = method
        self._first_pass = first_pass
        self._compiled: CompiledParts | None = None
        self._handles = Handles()
        self._watching = False
        self._closed = False

    @property
    def placed(self) -> bool:
        """Whether the sites of the cuts are known."""
        return self._first_run is None

    @property
    def parts(self) -> Sequence[Part]:
        """The parts between the cuts, as the first pass showed them."""
        return self._parts

    def register(self) -> None:
        """Register the hooks: those of the cuts, or those of a first pass that places them."""
        if self._handles or self._closed:
            return
        handles, network = self._handles, self._network
        if self._first_run is not None:
            handles.before_forward(network, self._begin_first_pass)
            for name, module in self._first_run.watched().items():
                handles.after_forward(module, self._watch_call, name)
            handles.after_forward(network, self._end_first_pass)
            return
        whole = self._method.needs_whole_pass
        if whole:
            handles.before_forward(network, self._begin_pass)
        for name in self._sites:
            handles.after_forward(network.get_submodule(name), self._pass_cut, name)
        if whole:
            handles.after_forward(network, self._end_pass, always=True)

    def detach_hooks(self) -> None:
        """Remove the hooks, and release what the last forward pass was given."""
        self._handles.remove()
        self.drop_pass()
        self._inputs.forget()

    def drop_pass(self) -> None:
        """Drop the running forward pass."""
        self._method.cancel()
        self._inputs.end()
        self._watching = False
        if self._first_run is not None:
            self._first_run.clear()

    def close(self) -> None:
        """Remove everything from the network, finally."""
        self.detach_hooks()
        self._closed = True
        self._first_run = None
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

    def place_by_example(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Place the cuts, and build their interfaces, from a pass on example input.

        Raises:
            DNIError: There is no place to cut, or a synthesizer cannot be built. Nothing has
                changed.
        """
        if self._first_run is None:
            return
        registered = bool(self._handles)
        self._handles.remove()
        try:
            self._inputs.begin(args, kwargs)
            self._apply_plan(self._first_run.trace(args, kwargs), example=True)
        finally:
            self._inputs.forget()
            if registered:
                self.register()

    def _learning(self) -> bool:
        return self._network.training and torch.is_grad_enabled()

    # The first pass: an ordinary pass of training in which every layer that may be cut learns.

    def _begin_first_pass(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        assert self._first_run is not None
        self._first_run.clear()  # of a pass that broke off
        self._watching = self._learning()
        if self._watching and self._first_run.needs_trace:
            # The graph has to be seen before any part learns: the first input is the example.
            self._watching = False
            self.place_by_example(args, kwargs)
            self._begin_pass(module, args, kwargs)
        elif self._watching:
            self._inputs.begin(args, kwargs)

    def _watch_call(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        context = self._inputs.context()
        # Checkpointed parts run without gradients at first, in a pass that has them.
        if self._first_run is None or not (self._watching or self._learning()):
            return
        self._first_run.record(name, module, args, output)
        activation = first_activation(output)
        if activation is not None and activation.requires_grad:
            exchange = partial(self._exchange_in_first_pass, name)
            self._first_pass.add_hook(name, activation, context, True, exchange)

    def _exchange_in_first_pass(
        self, name: str, trigger: Tensor, context: Context | None, grad: Tensor
    ) -> Tensor | None:
        # The user may have called modules inside, and not the network, which ends the first pass.
        self._finish_first_pass(None)
        return self._first_pass.exchange(name, trigger, context, grad)

    def _end_first_pass(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._finish_first_pass(output)

    def _finish_first_pass(self, output: Any) -> None:
        first_run = self._first_run
        if first_run is None or not first_run.has_calls:
            self._inputs.end()
            return
        try:
            self._apply_plan(first_run.plan(output), example=False)
            if self._handles:
                self._handles.remove()
                self.register()
        finally:
            first_run.clear()
            self._watching = False
            self._inputs.end()

    def _apply_plan(self, plan: CutPlan, example: bool) -> None:
        built: dict[str, Interface] = {}
        for site in plan.sites:
            activation = plan.activations.get(site.name)
            if activation is None or not (example or activation.requires_grad):
                continue
            built[site.name] = self._interfaces.build(site, activation)
            if not example:
                self._interfaces.check(built[site.name], activation)
        self._parts = plan.parts
        self._set_sites(plan.sites)
        for name, interface in built.items():
            self._interfaces.add(interface, name, plan.activations[name])

    def _set_sites(self, sites: Iterable[Site]) -> None:
        self._sites = {site.name: site for site in sites}
        self._first_run = None
        if self._compiled is not None:
            self._compiled.apply(self._sites)

    # Every further pass.

    def _begin_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._learning():
            self._inputs.begin(args, kwargs)
            self._method.begin(args, kwargs)

    def _pass_cut(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        context = self._inputs.context()
        if not self._learning():
            return None
        activation = first_activation(output)
        if activation is None or not activation.requires_grad:
            return None
        interface = self._interfaces.get(name)
        known = interface is not None
        if interface is None:
            interface = self._interfaces.build(self._sites[name], activation)
        self._interfaces.check(interface, activation)
        if not known:
            self._interfaces.add(interface, name, activation)
        passed = self._method.pass_cut(name, interface, activation, context)
        if passed is None:
            return None
        return map_floating(output, lambda tensor: passed if tensor is activation else tensor)

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
            "sites": [[*site] for site in self._sites.values()],
            "placed": self.placed,
            "parts": [[*part] for part in self._parts],
            **self._interfaces.state_dict(),
        }

    def prepare_load(
        self, state: dict[str, Any]
    ) -> tuple[dict[str, Interface], Callable[[], None]]:
        """Build the interfaces of a saved state, and return them with a function to load them.

        Nothing has changed until that function is called; it cannot fail.

        Raises:
            CheckpointError: The state does not fit the network or the wrapper's arguments.
        """
        with reading("the list of cuts"):
            sites = {text(name): Site(name, text(source)) for name, source in state["sites"]}
            parts = [_part(*part) for part in state["parts"]]
            placed = bool(state["placed"])
        known = {name for name, _ in self._network.named_modules(remove_duplicate=False)}
        for site in sites.values():
            if not known.issuperset(site):
                raise CheckpointError(
                    f"the checkpoint does not fit this wrapper: it has a cut at {site.name!r}, "
                    "which is no module of this network: give DNI the network it was saved with"
                )
        interfaces, load_interfaces = self._interfaces.prepare_load(state, sites)

        def load() -> None:
            load_interfaces()
            self._parts = parts
            if placed:
                registered = bool(self._handles)
                self._handles.remove()
                self._set_sites(sites.values())
                if registered:
                    self.register()

        return interfaces, load


def _part(cut: Any, modules: Any, parameters: Any, size: Any) -> Part:
    return Part(text(cut), [text(name) for name in modules], number(parameters), number(size))
