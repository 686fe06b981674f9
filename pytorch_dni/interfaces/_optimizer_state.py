"""The state of the synthesizers' optimizer, in entries that are the same before its first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn, Tensor
from torch.optim import Optimizer

from .._checkpoint import mapping, real, tensor

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]


class OptimizerState:
    """Saves and loads the state of an optimizer.

    Most optimizers make the state of a parameter in its first step. The entries of parameters that
    have none yet are filled with zeros, so that the names and shapes of entries do not depend on
    it: some tools load only what a new wrapper has entries for.

    Args:
        optimizer: The optimizer.
        make: Makes one of the same kind for other parameters.
    """

    def __init__(self, optimizer: Optimizer, make: MakeOptimizer) -> None:
        self._optimizer = optimizer
        self._make = make
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def save(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        state = self._optimizer.state
        started = [bool(state.get(p)) for p in self._parameters]
        model = [{}] * len(started) if all(started) else self._first_states()
        return {
            "groups": [_options(group) for group in self._optimizer.param_groups],
            "started": torch.tensor(started, dtype=torch.bool, device="cpu"),
            "state": {
                str(i): state[p] if started[i] else _zeros(model[i])
                for i, p in enumerate(self._parameters)
            },
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Continue from a saved state; all of it is checked first.

        Raises:
            KeyError, TypeError, ValueError: It does not fit the optimizer.
        """
        started = tensor(saved["started"], [len(self._parameters)], torch.bool).tolist()
        entries = [mapping(saved["state"][str(i)]) for i in range(len(started))]
        states = {i: entry for i, entry in enumerate(entries) if started[i]}
        empty = [entry for i, entry in enumerate(entries) if not started[i]]
        if any(
            bool(torch.as_tensor(v).any())
            for entry in empty
            for v in entry.values()
            if v is not None
        ):
            raise ValueError("a parameter that is not trained yet has a state")
        if states:
            models = self._first_states()
            for i, state in states.items():
                _check_state(state, models[i], f"parameter {i}")
        own = self._optimizer.state_dict()["param_groups"]
        if len(own) != len(saved["groups"]):
            raise ValueError(f"{len(saved['groups'])} groups of parameters instead of {len(own)}")
        groups = [
            {**group, **_checked_options(options, group)}
            for options, group in zip(saved["groups"], own, strict=True)
        ]
        self._optimizer.load_state_dict({"state": states, "param_groups": groups})

    def _first_states(self) -> list[Mapping[str, Any]]:
        """Return the states that a first step makes, for zeros in the place of the parameters."""
        zeros = [nn.Parameter(torch.zeros_like(p)) for p in self._parameters]
        if not zeros:
            return []
        with torch.random.fork_rng(devices=[]):
            optimizer = self._make(zeros)
            for parameter in zeros:
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
        return [optimizer.state.get(parameter, {}) for parameter in zeros]


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _zeros(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state of the same shapes and types without values."""
    empty: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            empty[name] = torch.zeros_like(value)
        else:
            empty[name] = type(value)(0) if isinstance(value, (bool, int, float)) else None
    return empty


def _check_state(state: Mapping[str, Any], model: Mapping[str, Any], what: str) -> None:
    """Check the saved state of a parameter by the one that a first step makes.

    Optimizers may add more to a state later.
    """
    for name, first in model.items():
        if name not in state:
            raise ValueError(f"{what} has no {name!r}")
        value = state[name]
        if isinstance(first, Tensor):
            tensor(value, first.shape, first.dtype)
        elif isinstance(first, (int, float)):
            real(value)


def _checked_options(saved: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved options of a group; ``TypeError`` where one is of another kind."""
    for name, value in mapping(saved).items():
        if name not in own or name == "params":
            raise ValueError(f"the optimizer has no option {name!r}")
        if not _same_kind(value, own[name]):
            raise TypeError(f"the option {name!r} is {value!r} where {own[name]!r} belongs")
    return dict(saved)


def _same_kind(value: Any, own: Any) -> bool:
    if isinstance(own, (list, tuple)):
        same = isinstance(value, (list, tuple)) and len(value) == len(own)
        return same and all(map(_same_kind, value, own))
    if own is None or isinstance(own, bool):
        return value is None or isinstance(value, bool)  # three-valued switches
    if isinstance(own, (int, float, Tensor)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number or (isinstance(value, Tensor) and value.numel() == 1)
    return isinstance(value, type(own))
