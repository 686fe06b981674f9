"""The wrapper: one line that makes a network's parts learn from synthetic gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn, Tensor
from torch.optim import Optimizer

from . import _checkpoint
from ._checks import check_lambda, check_network, check_optim
from ._cuts import BPLambda, Cuts
from ._moments import InterfaceStats
from ._plan import table
from ._probe import Probe, Site
from ._recipe import ForwardSpec, Interface, Recipe, SynthesizerSpec, TemporalRecipe
from ._select import Layers, select
from ._sparse import Schedule
from .errors import DNIError, SelectionError
from .interfaces import BidirectionalInterface
from .interfaces._learner import Learner, OptimizerFactory
from .recurrent import Future, StateSpec
from .recurrent._windows import Windows
from .recurrent.spec import resolve


class DNI(nn.Module):
    """Wraps a network so that its parts learn from synthetic gradients; the loop stays as it is.

    At each cut stands an interface. When the true gradient reaches it in ``loss.backward()``, its
    synthesizer learns to predict that gradient from the activation, and the prediction goes on in
    its place. Forward values are the bare network's; in ``eval()`` and under ``no_grad`` nothing
    is attached, stored or trained. The synthesizers train themselves, with an optimizer of their
    own; ``parameters()`` are the network's alone.

    Args:
        network: Any module. It is changed by hooks only; :meth:`unwrap` takes them out.
        optim: The network's optimizer, if it is there already; checked to hold its parameters.
        layers: Where to cut: a number of parts, which are made alike in cost, at places that
            everything goes through (the first input tells); or qualified names, patterns of them
            (``"blocks.*"``, ``**`` for any depth), module types, modules, a predicate
            ``(name, module) -> bool``, or several of these. None finds the layers with a weight of
            two or more dimensions, recurrent ones excepted, and cuts behind the activation that
            follows each.
        recursive: False takes the whole network as one part, with one interface at its output.
        skip_last_layer: Leave out the layer that runs last, which the loss teaches directly;
            modules asked for by name stay.
        dni_network: A class of synthesizers, or a callable ``(name, module, output) -> module``;
            None picks :class:`Linear_DNI` or :class:`Conv2d_DNI` by the output.
        dni_params: Further parameters of that class.
        hidden_size: Width of the synthesizers; None lets their class choose.
        context_size: Width of the context, for labels the number of classes. None: no context.
        unlock: ``"update"``: parts need not wait for the backward pass. ``"full"``: nor for the
            forward pass; in training, each interface also predicts the activation for the part
            behind it, from the network's input (its first floating-point tensor) and the context.
        forward_network: Makes the synthesizers of activations, a callable
            ``(name, input, output) -> module`` whose result has ``forward(trigger, context)``;
            None picks them by the shapes of the network's input and the activation.
        bp_lambda: How much of the true gradient goes on, from 0 to 1, or a function of the step.
            At 1 the gradients are backpropagation's own while the synthesizers still learn.
        update_probability: In which share of the steps each part learns, at random, each by
            itself: the others get no gradient in that step (``grad`` stays as it was), and send
            none to the synthesizer in front of them. Drawn from PyTorch's seed at this point.
        recurrent: Which modules have a state that windows hand on: names, with a
            :class:`StateSpec` for modules that PyTorch does not know (None for the others); True
            for all of PyTorch's own, False for none. None is True where the network holds one and
            ``layers`` is None. Where states are cut, ``layers=None`` cuts nothing else.
        future: How the synthetic gradients of states are used.
        eager: Compute each part's gradients as soon as it has run in the forward pass, so that its
            activations can go: memory is that of one part. They are handed over in
            ``loss.backward()``. Takes cuts that everything goes through; where ``bp_lambda`` is
            not 0, steps go the usual way.
        grad_optim: The synthesizers' optimizer: ``"adam"``, ``"adamw"``, ``"rmsprop"``, ``"sgd"``,
            a class, or a callable ``(parameters, lr=...) -> Optimizer``.
        grad_lr: Its learning rate; None takes each synthesizer's own default.
        grad_steps: How many steps it takes on what one backward pass teaches; None takes one, and
            with sparse updates as many as make up for the steps left out, up to 10, unless the
            synthesizers are local losses.
        example_input: Input (a tuple of arguments, or a mapping of keywords) to place the cuts and
            make the synthesizers with at once, rather than at the first training forward pass.

    Raises:
        DNIError: An argument is wrong; its message says which, why and what to do.

    Source: Jaderberg et al. 2017, "Decoupled Neural Interfaces using Synthetic Gradients".
    """

    def __init__(
        self,
        network: nn.Module,
        optim: Optimizer | None = None,
        *,
        layers: Layers = None,
        recursive: bool = True,
        skip_last_layer: bool = True,
        dni_network: SynthesizerSpec | None = None,
        dni_params: Mapping[str, Any] | None = None,
        hidden_size: int | None = None,
        context_size: int | None = None,
        unlock: str = "update",
        forward_network: ForwardSpec | None = None,
        bp_lambda: BPLambda = 0.0,
        update_probability: float = 1.0,
        recurrent: bool | Mapping[str, StateSpec | None] | None = None,
        future: Future | None = None,
        eager: bool = False,
        grad_optim: str | OptimizerFactory = "adam",
        grad_lr: float | None = None,
        grad_steps: int | None = None,
        example_input: Any = None,
    ) -> None:
        super().__init__()
        check_network(network, DNI)
        check_optim(network, optim)
        if not recursive and layers is not None:
            raise SelectionError("layers and recursive=False exclude each other: give one of them")
        if not recursive and example_input is not None:
            raise DNIError("recursive=False has one known cut: leave example_input away")
        check_lambda(bp_lambda)
        specs = resolve(network, recurrent, spatial=layers is not None or not recursive)
        probe, sites = None, [Site("", "")]
        if layers is not None or (recursive and not specs):
            probe = Probe(network, select(network, layers, skip_last_layer), skip_last_layer)
        if probe is not None or (recursive and specs):
            sites = []
        recipe = Recipe(dni_network, dni_params, hidden_size, context_size, unlock, forward_network)
        if eager and (specs or recipe.full):
            raise DNIError(
                "eager takes unlock='update' and cuts in space alone: give recurrent=False to cut "
                "a recurrent network so"
            )
        schedule = Schedule(update_probability, torch.initial_seed())
        steps = schedule.repeats(grad_steps, recipe.regresses)
        self._learning = (grad_optim, grad_lr, steps)
        self._cuts = Cuts(network, probe, sites, recipe, Learner(*self._learning), schedule, eager)
        future = Future() if future is None else future
        if future.target != "bootstrap" and (probe is not None or sites):
            raise DNIError(
                f"future: target={future.target!r} runs windows again, which cuts in space would "
                "learn from twice: leave layers away, or take target='bootstrap'"
            )
        build = TemporalRecipe(recipe, future)
        lambda_now = self._cuts.current_lambda
        self._windows = Windows(network, specs, build, future, self._cuts.learner, lambda_now)
        self._cuts.bp_lambda = bp_lambda
        self.optim = optim
        self.network = network
        if self._cuts.first_run is not None and example_input is not None:
            self._cuts.first_run.on_example(example_input)
        self.training = network.training
        self._register()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own forward pass."""
        self._cuts.learner.discard()
        if self.network.training:
            self._register()
        return self.network(*args, **kwargs)

    def _register(self) -> None:
        self._cuts.register()
        self._windows.register()

    def train(self, mode: bool = True) -> DNI:
        """Set training or evaluation; in evaluation the network carries no hook at all."""
        super().train(mode)
        if mode:
            self._register()
        else:
            self._cuts.rest()
            self._windows.rest()
        return self

    def compile(self, **options: Any) -> None:
        """Compile the modules that lie between cuts, each by itself; results stay the same.

        The cuts, where Python runs, stay outside, and so do single layers. Happens when such a
        module first runs; :meth:`unwrap` takes it back.

        Args:
            options: Of ``torch.compile``.
        """
        self._cuts.compile(options)

    def unwrap(self) -> nn.Module:
        """Give the bare network back as it was: no hook, attribute or parameter is left in it."""
        self._windows.close()
        self._cuts.close()
        return self.network

    @property
    def interfaces(self) -> Mapping[str, Interface]:
        """The interfaces by the qualified name of the module behind which each stands.

        Empty until they are made: from ``example_input``, or in the first training forward pass.
        """
        return MappingProxyType({**self._cuts.interfaces, **self._windows.interfaces})

    @property
    def bp_lambda(self) -> BPLambda:
        """How much of the true gradient goes on; may be set while training."""
        return self._cuts.bp_lambda

    @bp_lambda.setter
    def bp_lambda(self, value: BPLambda) -> None:
        check_lambda(value)
        self._cuts.bp_lambda = value

    def stats(self, direction: str = "backward") -> dict[str, InterfaceStats]:
        """Loss, cosine, norm ratio and updates of every interface, by qualified name.

        Means over about the last hundred updates; reading them waits for the device.

        Args:
            direction: ``"backward"`` tells of gradients, ``"forward"`` (with ``unlock="full"``) of
                activations.
        """
        if direction not in ("backward", "forward"):
            raise DNIError(f"direction must be 'backward' or 'forward', not {direction!r}")
        if direction == "backward":
            return {name: interface.stats() for name, interface in self.interfaces.items()}
        return {
            name: interface.forward_interface.stats()
            for name, interface in self.interfaces.items()
            if isinstance(interface, BidirectionalInterface)
        }

    def describe(self) -> str:
        """The parts as a table: modules, parameters, activation bytes, synthesizer parameters.

        Activations are what the part's leaf modules returned in the run that placed the cuts.

        Raises:
            DNIError: The parts are not known yet.
        """
        if self._cuts.first_run is not None:
            raise DNIError(
                "describe() tells of parts once they are known: after a training forward pass, or "
                "with example_input"
            )
        return table(self._cuts.plan, self.interfaces)

    def end_of_sequence(self, mask: Tensor | None = None) -> None:
        """Say that the sequences of some samples ended with the window that has just run.

        Nothing is sent back into their last states, whose synthesizer learns that they have no
        future. As long as such a sample's state is handed on as it is (padding), it counts in
        nothing. Comes between the forward and the backward pass; not needed where a state is not
        handed on, or another is.

        Args:
            mask: ``(batch,)``, true where the sequence ended; None where all did.

        Raises:
            DNIError: No window has run, or the mask is of another shape.
        """
        self._windows.end_of_sequence(mask)

    def observe(self, losses: Tensor) -> None:
        """For :class:`Critic_DNI`: the losses of the window that has just run, for each sample.

        As :meth:`CriticInterface.observe`, between the forward and the backward pass.

        Args:
            losses: ``(batch,)``.

        Raises:
            DNIError: There is no critic, or these are not one for each sample.
        """
        self._windows.observe(losses)

    def backward_state(self) -> None:
        """Backpropagate from the last states of a window that has no loss.

        Raises:
            DNIError: No window has run, or it has been gone through already.
        """
        self._windows.backward_state()

    def __getattr__(self, name: str) -> Any:
        """What the wrapper lacks is looked up in the network."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            network = self.__dict__.get("_modules", {}).get("network")
            if network is None:
                raise
            return getattr(network, name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DNI:
        # The synthesizers are no submodules (their parameters are not the user's to train), but
        # they move with the network.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for interface in self.interfaces.values():
            interface._apply(fn)
        self._cuts.learner.moved()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Synthesizers, normalisation and optimizer, for ``state_dict``; plain data and tensors."""
        return _checkpoint.save(self._cuts, self._windows)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, in a wrapper that has run as well as in a fresh one.

        Raises:
            CheckpointError: It does not fit this network or this wrapper's arguments.
        """
        _checkpoint.load(self._cuts, self._windows, state, Learner(*self._learning))
