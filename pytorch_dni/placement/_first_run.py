"""The first forward pass: it shows which modules run, and returns the plan of the cuts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.autograd.graph import saved_tensors_hooks

from .._buffers import BufferCopies
from .._tree import floating_tensors
from ..errors import SelectionError
from ._calls import Call, CallRecorder
from ._error_place import ErrorPlace, find_error_place
from ._graph import PartChain
from ._parts import Part, parts_between
from ._selection import Selection
from ._sites import find_sites, Site


class CutPlan(NamedTuple):
    """Where a network is to be cut.

    Attributes:
        sites: The sites, in the order of the run.
        parts: The parts between them.
        activations: By the name of the site, the activation that was seen there.
        error: Where the error is taken; None where no site was reached.
    """

    sites: list[Site]
    parts: list[Part]
    activations: dict[str, Tensor]
    error: ErrorPlace | None


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
        """Whether any watched module has run."""
        return bool(self._recorder.calls)

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
        outputs = [tensor for tensor in floating_tensors(output) if tensor.requires_grad]
        total = cost.total, cost.products
        sites = find_sites(
            self._selection, self._skip_last_layer, self.watched(), calls, outputs, total
        )
        if not sites:
            raise SelectionError(
                "nothing is left to cut: of the modules that layers found, only the last layer "
                "ran, and the last layer is not separated from its loss. Name other modules in "
                "layers, or give skip_last_layer=False"
            )
        if self.needs_trace:
            _check_separation(calls, sites, outputs)
        at = {call.name: call.output for call in calls}
        activations = {site.name: at[site.name] for site in sites if site.name in at}
        error = find_error_place(calls, sites, outputs)
        return CutPlan(sites, parts_between(calls, sites), activations, error)

    def trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CutPlan:
        """Run the network once in evaluation, and return the plan of that pass.

        Random numbers, buffers and modes are as before. What the graph saves for a backward pass is
        dropped at once, since only its nodes are needed.

        Raises:
            SelectionError: No place is left.
            DNIError: A cut does not separate the network, where it must.
        """
        network, recorder = self._network, self._recorder
        recorder.clear()
        buffers = BufferCopies(network)
        modes = {module: module.training for module in network.modules()}
        handles = [
            module.register_forward_hook(partial(recorder.record, name))
            for name, module in self.watched().items()
        ]
        count = nullcontext() if self._selection.parts is None else recorder.cost
        drop = saved_tensors_hooks(_drop, _drop)
        try:
            network.eval()
            with (
                torch.enable_grad(),
                torch.random.fork_rng(devices=[]),
                drop,
                count,
            ):
                output = network(*args, **kwargs)
            return self.plan(output)
        finally:
            recorder.clear()
            buffers.restore()
            for handle in handles:
                handle.remove()
            for module, mode in modes.items():
                module.training = mode


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
