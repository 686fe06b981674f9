"""The objects behind a wrapper: wired together, saved and loaded in one order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ._arguments import Places
from ._checkpoint import listed, mapping, number, reading
from ._flat import flatten, unflatten
from ._guard import LearningGuard
from ._refusal import Refusal
from ._saved import Load
from ._training_thread import TrainingThread
from .cuts import (
    ContextFit,
    CutMethod,
    Cuts,
    ExactEveryCuts,
    ForwardInputs,
    FunctionCuts,
    HookCuts,
    InterfaceSet,
    PassErrors,
    SynthesizerFactory,
    TriggerCopies,
    UpdatePolicy,
)
from .eager import EagerCuts
from .errors import DNIError
from .interfaces._learner import Learner
from .placement import FirstRun
from .recurrent import FutureGradient
from .recurrent._cuts import StateCuts
from .recurrent._factory import TemporalFactory
from .recurrent._module import StatefulModule
from .recurrent.multiwindow import make_target


class Rooms:
    """The objects behind a wrapper; each gets in its constructor what it needs.

    Args:
        network: The network.
        places: Where it is cut.
        factory: Builds synthesizers.
        learner: Trains them.
        policy: What passes each cut.
        eager: Whether parts learn in the forward pass.
        future: How the gradients of states are used.

    Attributes:
        learner: Trains the synthesizers.
        policy: What passes each cut.
        thread: Lets forward passes of training run in one thread at a time.
        in_space: The interfaces of cuts in space.
        errors: Takes the error of each forward pass.
        fit: The cuts that the context fits.
        cuts: The cuts in space.
        in_time: The cuts in time.
    """

    def __init__(
        self,
        network: nn.Module,
        places: Places,
        factory: SynthesizerFactory,
        learner: Learner,
        policy: UpdatePolicy,
        eager: bool,
        future: FutureGradient,
    ) -> None:
        self.learner = learner
        self.policy = policy
        self.thread = TrainingThread(type(network).__name__)
        inputs = ForwardInputs(network, keeps_input=factory.predicts_activations)
        self._copies = TriggerCopies()
        self.in_space = InterfaceSet(network, factory, learner, inputs)
        self.errors = PassErrors()
        hooks = HookCuts(self.in_space, self._copies, policy, self.errors)
        method: CutMethod = hooks
        if factory.predicts_activations or policy.schedule.sparse:
            method = FunctionCuts(inputs, policy, learner, self.errors)
        if policy.skips_exact:
            method = ExactEveryCuts(method, policy, self.errors, self._copies)
        if eager:
            method = EagerCuts(method, learner, policy, self._copies)
        first_run = None
        if places.selection is not None:
            first_run = FirstRun(network, places.selection, places.skip_last_layer, eager)
        automatic = places.selection is not None and places.selection.automatic
        self.fit = ContextFit(self.in_space, inputs, automatic)
        self._refusal = Refusal(network)
        kind = type(network).__name__
        self._guard = LearningGuard(learner, policy, kind, self.in_space)
        shared = (self.in_space, self.fit, inputs, self.errors, method, hooks)
        self.cuts = Cuts(network, first_run, places.sites, *shared)
        self.in_time = _in_time(network, places, factory, learner, policy, future)

    def register(self) -> None:
        """Register the hooks of all cuts."""
        self.cuts.register()
        self.in_time.register()

    def begin_pass(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a forward pass of the network with these arguments.

        Raises:
            ContextError: The kind or the values of the context do not suit an interface.
        """
        if self._refusal.begin(args, kwargs):
            self.fit.begin(self.in_time.interfaces.values())

    def end_pass(self, output: Any) -> None:
        """End a forward pass, which returned this output.

        Raises:
            ContextError: The context fits no cut.
        """
        self.fit.end()
        if self._refusal.accept():
            self._guard.watch(output)

    def drop_pass(self, error: BaseException) -> None:
        """Drop a forward pass that raised: nothing has changed by it."""
        self.cuts.drop_pass()
        self.in_time.drop_window()
        self.fit.drop()
        self._refusal.restore(isinstance(error, DNIError))

    def detach_hooks(self) -> None:
        """Remove the hooks of all cuts."""
        self.cuts.detach_hooks()
        self.in_time.detach_hooks()

    def close(self) -> None:
        """Remove everything from the network, finally."""
        self.in_time.close()
        self.cuts.close()
        self.learner.close()

    def saved_head(self) -> dict[str, int | float]:
        """Return the numbers that a wrapper has from the beginning."""
        return {"steps": self.learner.steps, **self.policy.state_dict()}

    def saved_tree(self) -> dict[str, Any] | None:
        """Return the rest of the state; None before there is an interface.

        Copies of a wrapper that tools made before its first pass then have the entries of the
        network and of the head alone, in the same order.
        """
        if self.in_space.empty and not self.in_time.interfaces:
            return None
        cuts = self.cuts.state_dict()
        return {
            "interfaces": cuts.pop("interfaces"),
            "cuts": cuts,
            "copied": self._copies.state_dict(self.in_space.by_name),
            "learner": self.learner.state_dict(),
            "windows": self.in_time.state_dict(),
        }

    def prepare_load(self, head: Mapping[str, Any], tree: Any) -> Load:
        """Read and build everything of a saved state, and return a function that replaces it.

        That function cannot fail.

        Raises:
            CheckpointError: It does not fit this network or this wrapper's arguments.
        """
        with reading("its list of entries"):
            steps = number(head["steps"])
            if tree is None:
                tree = self._without_interfaces(steps)
            cuts = {**mapping(tree["cuts"]), "interfaces": tree["interfaces"]}
            windows = mapping(tree["windows"])
            saved = mapping(tree["learner"])
            if number(saved["steps"]) != steps:
                raise ValueError("two counts of steps differ")
            loads = [
                self._copies.prepare_load(tree["copied"]),
                self.policy.prepare_load(head),
            ]
        interfaces, load_cuts = self.cuts.prepare_load(cuts)
        temporal, load_windows = self.in_time.prepare_load(windows)
        learner = self.learner.new()
        with reading("the optimizer of the synthesizers"):
            built = {**interfaces, **temporal}
            order = listed(saved["order"])
            if sorted(order) != sorted(built):
                raise ValueError(f"it trains {order}, and there are {[*built]}")
            for name in order:
                learner.add(built[name].trained(), name)
            learner.load_state_dict(saved)

        def load_all() -> None:
            self.learner.replace_by(learner)
            for load in (*loads, load_cuts, load_windows):
                load()

        return load_all

    def _without_interfaces(self, steps: int) -> dict[str, Any]:
        """Return the saved tree of a wrapper that has no interface yet."""
        tree = {
            "interfaces": {},
            "cuts": {
                **self.cuts.state_dict(),
                "passed_over": {},
                "error": None,
                "parts": [],
                "interfaces": {},
            },
            "copied": {},
            "learner": {**self.learner.new().state_dict(), "steps": steps},
            "windows": {},
        }
        read: dict[str, Any] = unflatten(flatten(tree))
        return read


def _in_time(
    network: nn.Module,
    places: Places,
    factory: SynthesizerFactory,
    learner: Learner,
    policy: UpdatePolicy,
    future: FutureGradient,
) -> StateCuts:
    modules = [
        StatefulModule(name, network.get_submodule(name), spec)
        for name, spec in places.states.items()
    ]
    target = make_target(future, network, modules, learner)
    interfaces = TemporalFactory(factory, future)
    return StateCuts(network, modules, interfaces, target, learner, policy.current_lambda)
