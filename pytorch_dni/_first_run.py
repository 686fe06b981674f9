"""The first run: hooks on all that may be cut, until the network has shown where cuts belong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import nn, Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from ._given import Given
from ._graph import Chain
from ._hooks import GradientHook, ModuleHook, Register
from ._plan import Part, parts
from ._probe import Call, Probe, Site
from ._recipe import Interface
from ._tree import first_activation, floats
from .errors import SelectionError


class Placing(Register, Protocol):
    """What a first run asks of the register that it places cuts in."""

    network: nn.Module
    given: Given
    plan: list[Part]
    traced: bool

    def learning(self) -> bool:
        """Whether a forward pass run now is one of training."""

    def build(self, site: Site, output: Tensor) -> Interface:
        """An interface for a place, not yet in use."""

    def install(self, sites: Iterable[Site]) -> None:
        """Cut at these places from now on."""

    def check(self, interface: Interface, activation: Tensor) -> None:
        """Raise where the context of the scope does not fit an interface."""

    def add(self, interface: Interface, name: str, output: Tensor) -> None:
        """Take an interface into use."""


class FirstRun:
    """Watches one forward pass and then hands the cuts over to their register.

    The pass is an ordinary one of training, whose cuts already learn; or one on example input, in
    evaluation, which changes nothing. Where the graph has to be seen before anything learns (eager
    learning, parts of equal cost), the first input serves as the example.
    """

    def __init__(self, cuts: Placing, probe: Probe) -> None:
        self._cuts = cuts
        self._probe = probe
        self._watching = False
        self._tracing = False

    def register(self) -> list[RemovableHandle]:
        """Put the hooks of a first run into the network."""
        network = self._cuts.network
        handles = [network.register_forward_pre_hook(_StartHook(self), with_kwargs=True)]
        for name, module in self._probe.watched().items():
            handles.append(module.register_forward_hook(_CallHook(self, name)))
        handles.append(network.register_forward_hook(_EndHook(self)))
        return handles

    def start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forget an earlier run that broke off."""
        if self._tracing:
            return
        self._probe.calls.clear()
        self._watching = self._cuts.learning()
        if self._watching and self._cuts.traced:
            self._watching = False
            self._trace(args, kwargs)
        self._cuts.enter(args, kwargs)

    def record(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A watched module ran: a cut may come here."""
        context = self._cuts.given.context()
        # Checkpointed parts run without gradients at first, in a pass that has them.
        if not (self._watching or self._cuts.learning()):
            return
        self._probe.record(name, module, args, output)
        activation = first_activation(output)
        if activation is not None and activation.requires_grad:
            activation.register_hook(GradientHook(self._cuts, name, activation, context, copy=True))

    def end(self, output: Any = None) -> None:
        """Place the cuts where the run shows them to belong, and build what stands there.

        Raises:
            SelectionError: No place is left.
            ContextError: The context of the run does not fit. Nothing has been placed.
        """
        if not self._probe.calls or self._tracing:
            return
        try:
            self._place(output, example=False)
        finally:
            self._probe.calls.clear()
            self._watching = False
            self._cuts.given.leave()

    def on_example(self, example: Any) -> None:
        """Run the network on example input (arguments as a tuple, keywords as a mapping)."""
        args, kwargs = (), example if isinstance(example, dict) else {}
        if not isinstance(example, dict):
            args = example if isinstance(example, tuple) else (example,)
        self._trace(args, kwargs)

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        network, probe, graph = self._cuts.network, self._probe, self._cuts.traced
        self._cuts.enter(args, kwargs)
        probe.calls.clear()
        probe.cost.total = probe.cost.products = 0
        modes = {module: module.training for module in network.modules()}
        handles = [
            module.register_forward_hook(_RecordHook(probe, name))
            for name, module in probe.watched().items()
        ]
        cost = probe.cost if probe.balances else nullcontext()
        self._tracing = True
        try:
            network.eval()
            # Of the graph only the nodes are wanted: what they save for a backward pass goes.
            saved = saved_tensors_hooks(_forgotten, _forgotten)
            with torch.set_grad_enabled(graph), torch.random.fork_rng(devices=[]), saved, cost:
                output = network(*args, **kwargs)
            self._place(output, example=True)
        finally:
            self._tracing = False
            probe.calls.clear()
            self._cuts.given.forget()
            for handle in handles:
                handle.remove()
            for module, mode in modes.items():
                module.training = mode

    def _place(self, output: Any, example: bool) -> None:
        calls = self._probe.calls
        outputs: dict[str, Tensor] = {call.name: call.output for call in calls}
        ends = [tensor for tensor in floats(output) if tensor.requires_grad]
        sites = self._probe.sites(ends)
        if not sites:
            raise SelectionError(
                "nothing is left to cut: of what layers found, only the last layer ran, and a "
                "last layer is not cut off from its loss. Name other modules in layers, or give "
                "skip_last_layer=False"
            )
        if self._cuts.traced:
            check_separation(calls, sites, ends)
        built = {}
        for site in sites:
            output = outputs.get(site.name)
            if output is not None and (example or output.requires_grad):
                built[site.name] = self._cuts.build(site, output)
                if not example:
                    self._cuts.check(built[site.name], output)
        self._cuts.plan = parts(calls, sites)
        self._cuts.install(sites)
        for name, interface in built.items():
            self._cuts.add(interface, name, outputs[name])


def check_separation(
    calls: Sequence[Call], sites: Sequence[Site], outputs: Sequence[Tensor]
) -> None:
    """Raise :class:`DNIError` where a cut does not separate the graph of a run."""
    names, chain = {site.name for site in sites}, Chain()
    for call in calls:
        if call.name in names and call.node is not None:
            chain.part(call.name, [call.node])
            chain.cut(call.name, call.node)
    nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    if nodes:
        chain.part(None, nodes)


def _forgotten(saved: Any) -> Any:
    """What is kept of a saved tensor: nothing."""


class _CallHook(ModuleHook):
    def __init__(self, run: FirstRun, name: str) -> None:
        self._run = run
        self._name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._run.record(self._name, module, args, output)


class _RecordHook:
    def __init__(self, probe: Probe, name: str) -> None:
        self._probe = probe
        self._name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._probe.record(self._name, module, args, output)


class _StartHook:
    def __init__(self, run: FirstRun) -> None:
        self._run = run

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._run.start(args, kwargs)


class _EndHook:
    def __init__(self, run: FirstRun) -> None:
        self._run = run

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._run.end(output)
