"""The wrapper: one line that makes a network's parts learn from synthetic gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn, Tensor
from torch.optim import Optimizer

from ._arguments import (
    check_combination,
    check_network,
    choose_places,
    choose_unlock,
    example_call,
    Recurrent,
    Unlock,
)
from ._audit import Audit, compare, cut_off, gradients
from ._description import describe, summary
from ._rooms import Rooms
from ._statistics import InterfaceStats
from ._wrapper import NetworkWrapper
from .cuts import (
    BPLambda,
    ExactEvery,
    ForwardSpec,
    Schedule,
    SynthesizerFactory,
    SynthesizerSpec,
    UpdatePolicy,
)
from .errors import DNIError
from .interfaces import BidirectionalInterface
from .interfaces._learner import Learner
from .interfaces._optimizer import OptimizerFactory, OptimizerName
from .placement import Layers
from .recurrent import FutureGradient

Direction = Literal["backward", "forward"]


class DNI(NetworkWrapper):
    """Wraps a network so that its parts learn from synthetic gradients; the loop stays as it is.

    An interface stands at each cut. When the true gradient reaches it in ``loss.backward()``, its
    synthesizer learns to predict that gradient from the activation, and the prediction is passed
    back in its place. Forward values are the bare network's; in ``eval()`` and under ``no_grad``
    nothing is attached, stored or trained. The synthesizers train themselves, with an optimizer of
    their own; ``parameters()`` are the network's alone.

    Args:
        network: Any module. It is changed by hooks only; :meth:`unwrap` removes them.
        optim: The network's optimizer. The learning rate of the default synthesizers follows its
            rate. A warning names parameters of the network that it lacks. None where several
            optimizers train the network, or where there is none yet.
        layers: Where to cut: a number of parts of about equal cost, cut at places that everything
            goes through (found with the first input); or qualified names, patterns of them
            (``"blocks.*"``, ``**`` for any depth), module types, modules, a predicate
            ``(name, module) -> bool``, or several of these. None finds the layers with a weight of
            two or more dimensions, recurrent ones excepted, and cuts after the activation function
            of each, or at the end of the residual block that it is in.
        recursive: False takes the whole network as one part, with one interface at its output.
        skip_last_layer: Leave out the layer that runs last, which the loss teaches directly;
            modules given by name stay.
        dni_network: A class of synthesizers, or a callable ``(name, module, output) -> module``.
            None picks :class:`Feedback_DNI` under the backward unlock, :class:`LocalError_DNI`
            with a context, and else :class:`Linear_DNI` or :class:`Conv2d_DNI` by the output.
        dni_params: Further parameters of that class.
        hidden_size: Width of the synthesizers; None lets their class choose.
        context_size: Width of the context, for labels the number of classes. None: no context.
        unlock: ``"backward"``: a part learns when the error of the pass is known, and need not
            wait for the backward pass of later parts. ``"update"``: nor for their forward pass.
            ``"full"``: nor for the forward pass of earlier parts; in training, each interface also
            predicts the activation for the next part, from the network's input (its first
            floating-point tensor) and the context. None takes ``"backward"``; with ``eager``, a
            context or ``recursive=False`` it takes ``"update"``.
        forward_network: Builds the synthesizers of activations, a callable
            ``(name, input, output) -> module`` whose result has ``forward(trigger, context)``;
            None picks them by the shapes of the network's input and the activation.
        bp_lambda: Share of the true gradient that is passed back, from 0 to 1, or a function of
            the step. At 1 the gradients are backpropagation's own; the synthesizers still learn.
        exact_every: Compute exact gradients, those of backpropagation, in one step of so many (or
            a function of the step); they train the network and the synthesizers. In the other
            steps no gradient crosses a cut, and none is computed with respect to an input of a
            part: such a step takes less time than one of backpropagation.
        update_probability: Share of the steps in which each part learns, at random, independently
            of the others. In the other steps it gets no gradient (``grad`` stays as it was), and
            sends none to the synthesizer before it. Drawn from PyTorch's seed at construction.
        recurrent: The modules whose state is carried from window to window: names, with a
            :class:`StateSpec` for modules that PyTorch does not know (None for the others); True
            for all of PyTorch's own, False for none. None is True where the network holds one and
            ``layers`` is None. Where states are cut, ``layers=None`` cuts nothing else.
        future: How the synthetic gradients of states are used.
        eager: Compute each part's gradients as soon as it has run in the forward pass, so that its
            activations can be freed: memory is that of one part. The gradients are delivered in
            ``loss.backward()``. Needs cuts that everything goes through; steps in which
            ``bp_lambda`` is not 0 work as without ``eager``.
        grad_optim: The synthesizers' optimizer: ``"adam"``, ``"adamw"``, ``"rmsprop"``, ``"sgd"``,
            a class, or a callable ``(parameters, lr=...) -> Optimizer``.
        grad_lr: Its learning rate; None takes each synthesizer's own default.
        grad_steps: How many steps it takes on the lessons of one backward pass. None takes one;
            with sparse updates as many as make up for the steps left out, up to 10, unless the
            synthesizers are local losses.
        example_input: Input (a tuple of arguments, or a dict of keywords) to place the cuts and
            build the synthesizers with at once, rather than in the first training forward pass. The
            network is run on it as in training, and nothing in it changes.

    Raises:
        DNIError: An argument is wrong; the message says which, why and what to do.

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
        unlock: Unlock | None = None,
        forward_network: ForwardSpec | None = None,
        bp_lambda: BPLambda = 0.0,
        exact_every: ExactEvery = 1,
        update_probability: float = 1.0,
        recurrent: Recurrent = None,
        future: FutureGradient | None = None,
        eager: bool = False,
        grad_optim: OptimizerName | OptimizerFactory = "adam",
        grad_lr: float | None = None,
        grad_steps: int | None = None,
        example_input: Any = None,
    ) -> None:
        check_network(network, optim, NetworkWrapper)
        places = choose_places(network, layers, recursive, skip_last_layer, recurrent)
        kind = dni_network, dni_params, hidden_size, context_size
        unlock = choose_unlock(unlock, places, eager, *kind)
        factory = SynthesizerFactory(*kind, unlock, forward_network)
        schedule = Schedule(update_probability, torch.initial_seed())
        repeats = schedule.repeats(grad_steps, factory.regresses)
        learner = Learner(grad_optim, grad_lr, repeats, optim)
        policy = UpdatePolicy(bp_lambda, schedule, learner, exact_every)
        future = check_combination(places, unlock == "full", eager, future, policy)
        rooms = Rooms(network, places, factory, learner, policy, eager, future)
        if example_input is not None:
            rooms.cuts.place_by_example(*example_call(example_input, places))
        super().__init__(network, rooms)
        self.optim, self.eager, self._unlock = optim, eager, unlock

    def compile(self, **options: Any) -> None:
        """Compile the modules between cuts, each separately; results stay the same.

        The cuts, where Python runs, are not compiled, and neither are single layers. A module is
        compiled when it first runs; :meth:`unwrap` undoes it.

        Args:
            options: Options of ``torch.compile``.
        """
        self._rooms.cuts.compile(options)

    @property
    def bp_lambda(self) -> BPLambda:
        """Share of the true gradient that is passed back; may be set while training."""
        return self._rooms.policy.bp_lambda

    @bp_lambda.setter
    def bp_lambda(self, value: BPLambda) -> None:
        self._rooms.policy.set_bp_lambda(value)

    def stats(self, direction: Direction = "backward") -> dict[str, InterfaceStats]:
        """Return loss, cosine, norm ratio and updates of every interface, by qualified name.

        They are means over about the last hundred updates; reading them waits for the device.

        Args:
            direction: ``"backward"`` for gradients, ``"forward"`` (with ``unlock="full"``) for
                activations.

        Raises:
            DNIError: The direction is none of these.
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
        """Return the parts as a table, the unlock level, notes, and where the error is taken.

        Notes name cuts before an activation function, and cuts that no pass has reached yet.

        A line for each cut that is passed over says why: the wrapper found it by itself, and the
        context does not fit the activation there.

        Activations are what the part's leaf modules returned in the pass that placed the cuts.

        Raises:
            DNIError: The parts are not known yet.
        """
        if not self._rooms.cuts.placed:
            raise DNIError(
                "describe() needs parts that are known: call it after a training forward pass, or "
                "give example_input"
            )
        rooms = self._rooms
        notes = [*rooms.cuts.describe(), *rooms.errors.describe(), *rooms.fit.describe()]
        return describe(rooms.cuts.parts, self.interfaces, self._unlock, notes)

    def extra_repr(self) -> str:
        """Return the unlock level and the cuts, which ``print`` shows."""
        return summary(self.interfaces, self._unlock, self._rooms.cuts.placed)

    def audit(self, closure: Callable[[Any], Tensor]) -> Audit:
        """Compare one step's gradients with those of backpropagation, part by part.

        Copies of the network run the step: under the wrapper, bare, and bare with no gradient
        passing any cut. The last one finds parameters that learn by a way around the cuts. The
        network, the synthesizers and random numbers stay as they are.

        Args:
            closure: Runs a forward pass of the network that it is given, and returns the loss.

        Raises:
            DNIError: The parts are not known yet, the network is in evaluation, or there is no
                loss.

        Example::

            print(net.audit(lambda network: criterion(network(x), y)))
        """
        if not self._rooms.cuts.placed or not self.network.training:
            raise DNIError(
                "audit() needs a network in training whose parts are known: call it after a "
                "training forward pass, or give example_input"
            )
        wrapped = copy.deepcopy(self)
        found = gradients(wrapped, closure, wrapped.network)
        del wrapped  # one copy at a time is in memory
        network = copy.deepcopy(self).unwrap()
        exact = gradients(network, closure, network)
        network = copy.deepcopy(self).unwrap()
        cut_off(network, self._rooms.in_space.by_name)
        return compare(self._rooms.cuts.parts, found, exact, gradients(network, closure, network))

    def end_of_sequence(self, mask: Tensor | None = None) -> None:
        """Tell that the sequences of samples ended with the window that has just run.

        Nothing is injected at their last states, whose synthesizer learns that they have no
        future. A sample whose state is carried on unchanged after that (padding) does not count.
        Call it between the forward and the backward pass. It is not needed where no state, or
        another one, is carried on.

        Args:
            mask: ``(batch,)``, true where the sequence ended; None where all did.

        Raises:
            DNIError: No window has run, or the mask is of another shape.
        """
        self._rooms.in_time.end_of_sequence(mask)

    def observe(self, losses: Tensor) -> None:
        """Give a :class:`Critic_DNI` the losses of the window that has just run.

        Call it as :meth:`CriticInterface.observe`, between the forward and the backward pass.

        Args:
            losses: ``(batch,)``, one for each sample.

        Raises:
            DNIError: There is no critic, or these are not one for each sample.
        """
        self._rooms.in_time.observe(losses)

    def backward_state(self) -> None:
        """Backpropagate from the last states of a window that has no loss.

        Raises:
            DNIError: No window has run, or it has been gone through already.
        """
        self._rooms.in_time.backward_state()
