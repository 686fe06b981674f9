"""The first forward pass: it shows which modules run, and returns the plan of the cuts."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.autograd.graph import saved_tensors_hooks

from .._objects import reachable_tensors
from .._tree import differentiable_tensors, tensors
from ..errors import describe, SelectionError
from ._calls import Call, CallRecorder
from ._default_sites import cuts_before_activation
from ._error_place import ErrorPlace, find_error_place
from ._graph import PartChain
from ._parts import Part, parts_between
from ._selection import Selection
from ._site import Site
from ._sites import find_sites
from ._untouched import untouched

NO_ACTIVATION = (
    "in which no floating-point tensor was found (it may be in a tuple, a list, a mapping or a "
    "dataclass), so that there is nothing to cut: name a module that returns a tensor"
)


class CutPlan(NamedTuple):
    """Where a network is to be cut.

    Attributes:
        sites: The sites, in the order of the run.
        parts: The parts between them.
        activations: By the name of the site, the activation that was seen there.
        error: Where the error is taken; None where no site was reached.
        before_activation: By the name of the site, an activation function that the cut stands
            before, though ``layers=None`` looks for places after them.
        idle: Layers that ``layers=None`` found and that did not run.
    """

    sites: list[Site]
    parts: list[Part]
    activations: dict[str, Tensor]
    error: ErrorPlace | None
    before_activation: dict[str, str]
    idle: list[str]


class FirstRun:
    """Records one forward pass and plans the cuts from it; changes nothing in the network.

    Args:
        network: The network.
        selection: What the user chose.
        skip_last_layer: Whether the layer that runs last is left out.
        check_separation: Whether each cut must separate the graph; with a number of parts every cut
            must.

    Attributes:
        needs_trace: Whether the plan needs the graph, so that a pass of its own comes first.
    """

    def __init__(
        self,
        network: nn.Module,
        selection: Selection,
        skip_last_layer: bool,
        check_separation: bool,
    ) -> None:
        self._network = network
        self._selection = selection
        self._skip_last_layer = skip_last_layer
        self._recorder = CallRecorder(network, selection)
        self.needs_trace = check_separation or selection.parts is not None

    def watched(self) -> dict[str, nn.Module]:
        """Return the modules whose calls are to be recorded, by qualified name."""
        return self._recorder.watched()

    def record(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Record a call of a watched module."""
        self._recorder.record(name, module, args, output)

    @property
    def has_calls(self) -> bool:
        """Whether any module has run that can be cut by itself, and not as the end of a block."""
        return self._recorder.has_calls

    def clear(self) -> None:
        """Drop the recorded calls."""
        self._recorder.clear()

    def plan(self, output: Any) -> CutPlan:
        """Return the plan of the recorded pass.

        Args:
            output: What the network returned.

        Raises:
            SelectionError: No place is left.
            DNIError: A cut does not separate the network, where it must.
        """
        calls, cost = self._recorder.calls, self._recorder.cost
        ends = _ends(output)
        if self._selection.parts is not None and not ends:
            raise SelectionError(
                f"layers={self._selection.parts}: the network returned a {type(output).__name__}, "
                "in which no tensor that requires a gradient was found, so that nothing tells "
                "which places its result goes through. Return tensors, or name modules in layers"
            )
        total = cost.total, cost.products
        sites = find_sites(
            self._selection, self._skip_last_layer, self.watched(), calls, ends, total
        )
        if not sites:
            raise SelectionError(
                "nothing is left to cut: of the modules that layers found, only the last layer "
                "ran, and the last layer is not separated from its loss. Name other modules in "
                "layers, or give skip_last_layer=False"
            )
        opaque = self._check_opaque()
        sites = [site for site in sites if site.name not in opaque]
        activations = _activations(calls, sites)
        made = [site for site in sites if site.name in activations]
        if self.needs_trace:
            _check_separation(calls, made, ends)
        error = find_error_place(calls, made, differentiable_tensors(output))
        idle = self.unplaced([*opaque, *(call.name for call in calls)])
        before = self._before_activation(made, ends)
        return CutPlan(sites, parts_between(calls, made), activations, error, before, idle)

    def _before_activation(self, sites: Sequence[Site], ends: Sequence[Tensor]) -> dict[str, str]:
        if not self._selection.automatic:
            return {}
        nodes = [end.grad_fn for end in ends if end.grad_fn is not None]
        found = cuts_before_activation(sites, self._recorder.calls, nodes)
        if found:
            places = ", ".join(f"{name!r} ({kind})" for name, kind in found.items())
            warnings.warn(
                f"DNI cuts before an activation function at {places}: no module computes it, or "
                "one that runs several times. Gradients there are harder to predict: use a module "
                "of its own for each activation function (nn.ReLU() instead of F.relu), or name "
                "other places in layers",
                stacklevel=2,
            )
        return found

    def unplaced(self, placed: Iterable[str]) -> list[str]:
        """Return the layers that ``layers=None`` found, those given left out."""
        return [*{*self._selection.found} - {*placed}] if self._selection.automatic else []

    def late_sites(self, names: Collection[str], output: Any) -> tuple[list[Site], set[str]]:
        """Return sites for layers of which some have run in the recorded calls, and those.

        The layer that ran last gets no site where it is to be left out.

        Args:
            names: The layers.
            output: What the network returned in that pass.
        """
        calls = self._recorder.calls
        late = self._selection._replace(found=tuple(n for n in self._selection.found if n in names))
        sites = find_sites(late, self._skip_last_layer, (), calls, _ends(output), (0, 0))
        ran = {*self._recorder.opaque, *(call.name for call in calls)}
        return sites, ran

    def _check_opaque(self) -> set[str]:
        """Return the modules that returned nothing to cut; where they were to be cut, warn.

        Raises:
            SelectionError: The user named one of them.
        """
        ran = {call.name for call in self._recorder.calls}
        opaque = {n: kind for n, kind in self._recorder.opaque.items() if n not in ran}
        named = [name for name in self._selection.named if name in opaque]
        if named:
            raise SelectionError(
                f"layers: {describe(named[0], self._network.get_submodule(named[0]))} returned "
                f"{opaque[named[0]]}, {NO_ACTIVATION}"
            )
        found = {*self._selection.found} if self._selection.parts is None else set()
        unmade = [f"{name!r} returned {kind}" for name, kind in opaque.items() if name in found]
        if unmade:
            warnings.warn(
                f"DNI makes no cut at some modules that layers found: {', '.join(unmade)}, "
                f"{NO_ACTIVATION}",
                stacklevel=2,
            )
        return {*opaque}

    def trace(self, args: tuple[Any, ...], kwargs: dict[str, Any], example: bool) -> CutPlan:
        """Run the network once in training, and return the plan of that pass.

        Modes, buffers, inputs and random numbers are as before. What the graph saves for a backward
        pass is dropped at once, since only its nodes are needed.

        Args:
            args: Arguments of the network.
            kwargs: Keywords of the network.
            example: Whether they are an example: it may be one that the network takes in evaluation
                alone (one sample before ``BatchNorm``), and is run in evaluation then.

        Raises:
            SelectionError: No place is left.
            DNIError: A cut does not separate the network, where it must.
        """
        recorder = self._recorder
        handles = [
            module.register_forward_hook(partial(recorder.record, name))
            for name, module in self.watched().items()
        ]
        try:
            with untouched(self._network, tensors((args, kwargs))):
                output = self._run(args, kwargs, example)
            return self.plan(output)
        finally:
            recorder.clear()
            for handle in handles:
                handle.remove()

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], example: bool) -> Any:
        network, recorder = self._network, self._recorder
        if not network.training:
            network.train()
        count = nullcontext() if self._selection.parts is None else recorder.cost
        with torch.enable_grad(), saved_tensors_hooks(_drop, _drop), count:
            try:
                recorder.clear()
                return network(*args, **kwargs)
            except Exception as error:
                if not example:
                    raise
                reason = error
            try:
                recorder.clear()
                return network.eval()(*args, **kwargs)
            except Exception:
                raise reason from None


def _ends(output: Any) -> list[Tensor]:
    """Return the tensors that require a gradient in what the network returned."""
    ends = [tensor for tensor in tensors(output) if tensor.requires_grad]
    # Attributes of an object are not always outputs: a cache of keys and values is none.
    return ends or [tensor for tensor in reachable_tensors(output) if tensor.requires_grad]


def _activations(calls: Sequence[Call], sites: Sequence[Site]) -> dict[str, Tensor]:
    """Return the activation at each site that was reached; one that two returned is the first's."""
    last = {call.name: call for call in calls}
    found: dict[tuple[int, int], tuple[str, Tensor]] = {}
    for site in sites:
        if site.name in last:
            call = last[site.name]
            found.setdefault((id(call.output), call.version), (site.name, call.output))
    return dict(found.values())


def _check_separation(
    calls: Sequence[Call], sites: Sequence[Site], outputs: Sequence[Tensor]
) -> None:
    """Raise :class:`DNIError` where a cut does not separate the graph of a run."""
    names, chain = {site.name for site in sites}, PartChain()
    for call in calls:
        if call.name in names and call.node is not None:
            chain.end_part(call.name, [call.node])
            chain.begin_part(call.name, call.node)
    nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    if nodes:
        chain.end_part(None, nodes)


def _drop(saved: Any) -> Any:
    """Keep nothing of a saved tensor."""
    return None
