"""The interfaces at a network's cuts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn, Tensor

from .._checkpoint import building, loading, mapping, reading
from .._flat import Fixed
from .._tree import TensorSpec
from ..errors import CheckpointError
from ..interfaces import BidirectionalInterface, OutputError
from ..interfaces._learner import Learner
from ..interfaces._retired import retire
from ..placement import ErrorPlace, Site
from ._factory import Interface, SynthesizerFactory, takes_error
from ._inputs import ForwardInputs


class InterfaceSet:
    """The interfaces at a network's cuts, by qualified name.

    Args:
        network: The network.
        factory: Builds interfaces.
        learner: Trains their synthesizers.
        inputs: The inputs of the forward pass.
    """

    def __init__(
        self,
        network: nn.Module,
        factory: SynthesizerFactory,
        learner: Learner,
        inputs: ForwardInputs,
    ) -> None:
        self._network = network
        self._factory = factory
        self._learner = learner
        self._inputs = inputs
        self._interfaces: dict[str, Interface] = {}
        # The learner has their synthesizers, too, so that a checkpoint holds them.
        self._left_out: dict[str, Interface] = {}
        # Saved in checkpoints: a fresh wrapper builds the interfaces for these.
        self._activations: dict[str, TensorSpec] = {}
        self._input: TensorSpec | None = None

    @property
    def by_name(self) -> Mapping[str, Interface]:
        """The interfaces by qualified name."""
        return self._interfaces

    @property
    def empty(self) -> bool:
        """Whether there is no interface, not even one that is left out."""
        return not (self._interfaces or self._left_out)

    def get(self, name: str) -> Interface | None:
        """Return the interface at a cut; None before there is one."""
        return self._interfaces.get(name)

    def build_all(
        self, sites: Iterable[Site], activations: Mapping[str, Tensor], error: ErrorPlace | None
    ) -> tuple[dict[str, Interface], ErrorPlace | None]:
        """Build interfaces for sites, without adding them.

        Args:
            sites: The sites.
            activations: By the name of the site, an activation there; others are left out.
            error: Where the error could be taken.

        Returns:
            The interfaces by name, and where the error is taken: None where no synthesizer takes
            it. The cut that the error is taken at gets no interface.

        Raises:
            DNIError: No synthesizer can be built.
        """
        known = [site for site in sites if site.name in activations]
        error = error if self._factory.may_take_error else None
        source = None if error is None else error.cut
        built = {
            site.name: self.build(site, activations[site.name], error=error)
            for site in known
            if site.name != source
        }
        if self._factory.takes_error or any(map(takes_error, built.values())):
            if source is not None and not built:
                warnings.warn(
                    "DNI makes no synthesizer, and the network learns by backpropagation: "
                    f"{source!r} is the only cut, and the error is taken there, since the network "
                    "does not return one small tensor. Take unlock='update', or name more modules "
                    "in layers",
                    stacklevel=2,
                )
            return built, error
        for site in known:
            if site.name == source:
                built[source] = self.build(site, activations[source])
        return built, None

    def build(
        self,
        site: Site,
        activation: Tensor,
        input: Tensor | None = None,
        error: ErrorPlace | None = None,
    ) -> Interface:
        """Build an interface for a site, without adding it.

        Args:
            site: The site.
            activation: An activation there.
            input: An input of the network, for the full unlock; None takes that of the running
                pass.
            error: Where the error is taken, if it is.

        Raises:
            DNIError: No synthesizer can be built, or the full unlock lacks the network's input.
        """
        module = self._network.get_submodule(site.name)
        source = self._network.get_submodule(site.source)
        if self._factory.predicts_activations and input is None:
            input = self._inputs.trigger()
        return self._factory.build(site, module, source, activation, input, error)

    def add_all(
        self, interfaces: Mapping[str, Interface], activations: Mapping[str, Tensor]
    ) -> None:
        """Add the first interfaces that there are: all of them, or none where one is refused.

        Args:
            interfaces: The interfaces by name.
            activations: By name, an activation at the cut.

        Raises:
            SynthesizerError: The user's optimizer cannot be built for them.
        """
        try:
            for name, interface in interfaces.items():
                self.add(interface, name, activations[name])
        except BaseException:
            self._interfaces.clear()
            self._learner.replace_by(self._learner.new())
            raise

    def add(self, interface: Interface, name: str, activation: Tensor) -> None:
        """Add an interface, which the learner trains from now on."""
        self._learner.add(interface.trained(), name)
        self._interfaces[name] = interface
        self._activations[name] = TensorSpec.of(activation)
        if self._factory.predicts_activations:
            self._input = TensorSpec.of(self._inputs.trigger())
        interface.set_learner(self._learner)

    def check(
        self, interface: Interface, activation: Tensor, error: OutputError | None = None
    ) -> None:
        """Raise :class:`DNIError` where the context of the scope or a synthesizer does not fit.

        Args:
            interface: The interface.
            activation: The activation.
            error: The error of the pass, if it is taken: a synthesizer that is given it is asked
                once, as soon as its shape is known.
        """
        context = self._inputs.context()
        interface.check_takes(context)
        if isinstance(interface, BidirectionalInterface):
            interface.check(activation, self._inputs.trigger(), context)
            interface.backward_interface.try_once(activation, context)
        else:
            interface.check(activation, context)
            interface.try_once(activation, context, error)

    def leave_out(self, names: Iterable[str]) -> None:
        """Leave out interfaces, those that there are, whose cuts are passed over from now on."""
        for name in names:
            if name in self._interfaces:
                self._left_out[name] = self._interfaces.pop(name)

    def clear(self) -> None:
        """Remove all interfaces."""
        self._interfaces.clear()
        self._left_out.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return {
            "takes_error": Fixed(self._factory.takes_error),
            "input": None if self._input is None else self._input.state_dict(),
            "interfaces": {
                name: {
                    "spec": self._activations[name].state_dict(),
                    **interface.state_dict(),
                }
                for name, interface in {**self._interfaces, **self._left_out}.items()
            },
        }

    def prepare_load(
        self, state: Mapping[str, Any], sites: Mapping[str, Site], error: ErrorPlace | None
    ) -> tuple[dict[str, Interface], Callable[[], None]]:
        """Build the interfaces of a saved state, and return them with a function to load them.

        Nothing has changed until that function is called; it cannot fail.

        Args:
            state: The saved state.
            sites: The saved sites by name.
            error: Where the error is taken, if it is.

        Raises:
            CheckpointError: The state does not fit the network or the factory.
        """
        device = next((p.device for p in self._network.parameters()), torch.device("cpu"))
        built: dict[str, Interface] = {}
        with reading("the list of interfaces"):
            input = state["input"]
            entries = mapping(state["interfaces"])
            saved = {
                name: {key: value for key, value in mapping(entry).items() if key != "spec"}
                for name, entry in entries.items()
            }
            specs = {name: TensorSpec.from_state(entry["spec"]) for name, entry in entries.items()}
            activations = {name: spec.zeros(device) for name, spec in specs.items()}
            input = None if input is None else TensorSpec.from_state(input)
            example = None if input is None else input.zeros(device)
            self._check_level(state["takes_error"], error)
        for name, activation in activations.items():
            built[name] = self._rebuild(name, sites, activation, example, saved[name], error)

        def load() -> None:
            retire([*self._interfaces.values(), *self._left_out.values()], self._learner)
            self._interfaces, self._activations, self._input = built, specs, input
            self._left_out = {}
            for interface in built.values():
                interface.set_learner(self._learner)

        return built, load

    def _check_level(self, takes_error: object, error: ErrorPlace | None) -> None:
        """Raise :class:`CheckpointError` where a state is of another unlock level."""
        unexpected = error is not None and not self._factory.may_take_error
        if takes_error is not self._factory.takes_error or unexpected:
            raise CheckpointError(
                "the checkpoint does not fit this wrapper: of its synthesizers and those of this "
                "wrapper only the ones take the error of a step: give DNI the same unlock, "
                "context_size and dni_network"
            )

    def _rebuild(
        self,
        name: str,
        sites: Mapping[str, Site],
        activation: Tensor,
        input: Tensor | None,
        state: dict[str, Any],
        error: ErrorPlace | None,
    ) -> Interface:
        if name not in sites:
            raise CheckpointError(
                f"the checkpoint does not fit this wrapper: its interface {name!r} has no place"
            )
        with building(name):
            interface = self.build(sites[name], activation, input, error)
        with loading(name):
            interface.load_state_dict(state)
        return interface
