"""Accumulate BP(lambda): eligibility traces of the predictions at earlier states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor

from ..._gradients import ParameterGrads
from ..._normalization import Scalar, sum_of_squares
from ...errors import SynthesizerError
from ...interfaces._learner import Learner
from ...interfaces._pending import Lesson
from ...interfaces._prediction import sample_weights
from ...synthesizers._mlp import MLP
from .._module import StatefulModule
from .._state import WindowState
from ..interface import TemporalInterface
from ._record import WindowRecord
from ._replay import Replay
from ._target import MultiWindowTarget

States = Mapping[str, tuple[TemporalInterface, WindowState]]


class Traces(MultiWindowTarget):
    """Sends each window's error to all predictions before it.

    With ``g`` the synthetic gradient, ``f`` the factor, ``a`` what a window sent back to its first
    state ``s`` (including what was injected into it) and ``J`` the derivative of its last state by
    its first one: ``e[k] = f lambda J[k-1] e[k-1] + dg(s[k])/dtheta``, and theta learns from
    ``e[k]^T (a[k] - g(s[k]))``. Over a sequence this is the lambda-return, and no window is kept.
    A trace holds ``features * parameters`` numbers in each sample. Carrying it through a window
    takes as many backward passes as states have features.

    Args:
        network: The network.
        modules: Its stateful modules.
        learner: Trains the synthesizers.
        lambda_: From 0, the bootstrap, to 1.

    Source: Pemberton and Costa 2024: accumulate BP(lambda).
    """

    def __init__(
        self,
        network: nn.Module,
        modules: Sequence[StatefulModule],
        learner: Learner,
        lambda_: float,
    ) -> None:
        super().__init__(network, modules, learner)
        self._lambda = lambda_
        self._before: WindowRecord | None = None
        # By the key of the interface: (batch, features of all states, synthesizer's parameters).
        self._traces: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_before": None, "_traces": {}}

    def forget(self) -> None:
        """Release what is kept of earlier windows."""
        super().forget()
        self._before, self._traces = None, {}

    def check(self, interface: TemporalInterface) -> None:
        """Raise :class:`SynthesizerError` where an interface cannot learn this target."""
        super().check(interface)
        _mlp(interface)

    def learn(self, record: WindowRecord) -> None:
        """Learn from the error of a window, and carry the traces through it."""
        with torch.no_grad():
            if record.dropped:
                zeros = {
                    k: torch.zeros_like(state.state) for k, (_, state) in record.dropped.items()
                }
                self._teach(record.dropped, zeros)
            if self._before is None or not record.continues(self._before):
                self._traces = {}
            self._before = None
            if not record.complete:
                return
            states = {key: (c.interface, c.before) for key, c in record.taken.items()}
            replay = self.replay(record)
            self._teach(states, self._targets(record, replay))
            self._carry(record, replay)
            self._before = record

    def _targets(self, record: WindowRecord, replay: Replay) -> dict[str, Tensor]:
        """Return the gradients at the first states, in a probe with what was not injected."""
        missing = {
            key: self.predicted(end) for key, end in record.left.items() if end.injection.probes
        }
        if not missing:
            return record.received
        added = replay.backpropagate(missing, retain=True)
        return {
            key: true + record.taken[key].gradient_before(added[key]).to(true)
            for key, true in record.received.items()
        }

    def _teach(self, states: States, targets: Mapping[str, Tensor]) -> None:
        """Learn at states from gradients; predictions at earlier states learn with them."""
        errors, squares, units = [], {}, {}
        for key, (interface, state) in states.items():
            if interface.scale is not None and not interface.scale.count:
                self._traces = {}
                return  # without a unit there is no prediction
            units[key] = 1.0 if interface.scale is None else interface.scale.value
            error, square = _error(interface, state, targets[key])
            errors.append(error)
            squares[key] = square
        joined = torch.cat(errors, 1)
        place, lessons = 0, []
        for (key, (interface, state)), error in zip(states.items(), errors, strict=True):
            mlp = _mlp(interface)
            trigger = interface.runner.joined(state.state.to(interface.dtype), state.context)
            own = mlp.jacobian(trigger) / units[key]
            trace = self._traces.get(key)
            if trace is None or len(trace) != len(own) or trace.shape[1] != joined.shape[1]:
                trace = own.new_zeros(len(own), joined.shape[1], own.shape[2])
            trace[:, place : place + error.shape[1]] += own
            self._traces[key] = trace
            place += error.shape[1]
            grads = _split(mlp, torch.einsum("bsp,bs->p", trace, joined))
            lessons.append(Lesson(grads, square=squares[key]))
        self._learner.teach(lessons)
        for interface, _ in states.values():
            interface.check_guard()

    def _carry(self, record: WindowRecord, replay: Replay) -> None:
        """Carry the traces through a window, from its first states to its last ones."""
        last = replay.last
        if not self._traces or last.keys() != record.taken.keys():
            self._traces = {}
            return
        rows = []
        for key, state in last.items():
            end = record.left[key]
            has_future = ~end.state.without_future
            for i in range(state.shape[1]):
                one = torch.zeros_like(state)
                one[:, i] = has_future.to(state) * (end.injection.factor * self._lambda)
                back = replay.backpropagate({key: one}, retain=True)
                taken = [record.taken[k].gradient_before(back[k]) for k in record.taken]
                rows.append(torch.cat(taken, 1))
        jacobian = torch.stack(rows, 1)  # (batch, last features, first features)
        self._traces = {key: jacobian.to(t) @ t for key, t in self._traces.items()}


def _error(interface: TemporalInterface, state: WindowState, true: Tensor) -> tuple[Tensor, Scalar]:
    """Return the gradient of the squared error by the prediction, and the target's squares."""
    prediction = interface.predict(state.state, state.context).message
    share = sample_weights(state.valid_mask, true)
    interface.moments.apply(interface.moments.measure(prediction * share, true * share))
    square = sum_of_squares(true)
    return (prediction - true) * (share * (2 / max(true.numel(), 1))), square


def _mlp(interface: TemporalInterface) -> MLP:
    """Return the MLP that is all of an interface's synthesizer.

    Raises:
        SynthesizerError: There is none, or its predictions for a sample depend on other samples.
    """
    mlp = interface.runner.mlp
    if mlp is None or mlp.norm is not None:
        raise SynthesizerError(
            f"{interface.owner}: target='traces' takes an MLP without normalisation, but "
            f"this synthesizer is {type(interface.synthesizer).__name__}: give dni_network="
            "Linear_DNI, dni_params={'norm': None}"
        )
    return mlp


def _split(mlp: MLP, grad: Tensor) -> ParameterGrads:
    parameters = [*mlp.parameters()]
    parts = grad.split([parameter.numel() for parameter in parameters])
    return [(p, part.view_as(p)) for p, part in zip(parameters, parts, strict=True)]
