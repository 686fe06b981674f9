"""The state of a part as tensors under flat names, which hold for any number of parts.

- ``network.NAME``: parameters and buffers, under the names that they have in the network
- ``optimizer.NAME.state.KEY``, ``optimizer.NAME.number.KEY``, ``optimizer.NAME.option.KEY``: what
  the optimizer has for a parameter, and the options of its group
- ``scheduler.KEY``: numbers of the scheduler
- ``interfaces.NAME.KEY``: the interface of a cut
- ``random.PART.REPLICA``: random numbers of a rank
- ``pipeline.batches``: how many batches have been trained on
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn, Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..errors import CheckpointError

BATCHES = "pipeline.batches"


def network_state(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers."""
    return {f"network.{name}": value.detach() for name, value in module.state_dict().items()}


def optimizer_state(module: nn.Module, optimizer: Optimizer | None) -> dict[str, Tensor]:
    """Return what an optimizer has for the parameters of a module."""
    found: dict[str, Tensor] = {}
    names = {parameter: name for name, parameter in module.named_parameters()}
    for group in [] if optimizer is None else optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in names:
                continue
            start = f"optimizer.{names[parameter]}"
            assert optimizer is not None
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{start}.state.{key}"] = value.detach()
                elif isinstance(value, (int, float)):
                    found[f"{start}.number.{key}"] = _numbers(value)
            for key, value in group.items():
                if key != "params" and _is_option(value):
                    found[f"{start}.option.{key}"] = _numbers(value)
    return found


def scheduler_state(scheduler: LRScheduler | None) -> dict[str, Tensor]:
    """Return the numbers of a scheduler; what it has for each group of parameters is left out.

    The learning rates themselves are options of the optimizer.
    """
    state = {} if scheduler is None else scheduler.state_dict()
    return {
        f"scheduler.{key}": _numbers(value)
        for key, value in state.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def load_network(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Load parameters and buffers; all names must be there."""
    module.load_state_dict(entries(saved, "network."))


def load_optimizer(
    module: nn.Module, optimizer: Optimizer | None, saved: Mapping[str, Tensor]
) -> None:
    """Continue with the state of an optimizer, and the options of the first one in each group."""
    if optimizer is None:
        return
    names = {parameter: name for name, parameter in module.named_parameters()}
    own = optimizer.state_dict()
    states: dict[int, dict[str, Any]] = {}
    groups = []
    for group, numbered in zip(optimizer.param_groups, own["param_groups"], strict=True):
        options = dict(numbered)
        for position, (parameter, index) in enumerate(
            zip(group["params"], numbered["params"], strict=True)
        ):
            start = f"optimizer.{names.get(parameter)}"
            state: dict[str, Any] = entries(saved, f"{start}.state.")
            numbers = entries(saved, f"{start}.number.")
            state.update({key: value.item() for key, value in numbers.items()})
            if state:
                states[index] = state
            if position == 0:
                found = entries(saved, f"{start}.option.")
                options.update(
                    {
                        key: _like(options[key], value)
                        for key, value in found.items()
                        if key in options
                    }
                )
        groups.append(options)
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def load_scheduler(scheduler: LRScheduler | None, saved: Mapping[str, Tensor]) -> None:
    """Continue with the numbers of a scheduler."""
    if scheduler is None:
        return
    own = scheduler.state_dict()
    found = entries(saved, "scheduler.")
    own.update({key: _like(own[key], value) for key, value in found.items() if key in own})
    scheduler.load_state_dict(own)


def entries(saved: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """Return the entries whose names begin so, without that beginning."""
    return {
        name.removeprefix(start): value for name, value in saved.items() if name.startswith(start)
    }


def wanted(
    names: Iterable[str], module: nn.Module, interfaces: Iterable[str] = (), random: str = ""
) -> list[str]:
    """Return which entries of a checkpoint a module, its optimizer and its interfaces need.

    Args:
        names: Names of all entries.
        module: The module.
        interfaces: Names of the interfaces.
        random: Name of the entry of random numbers.

    Raises:
        CheckpointError: A parameter or buffer is missing.
    """
    own = [*module.state_dict()]
    there = [*names]
    missing = [name for name in own if f"network.{name}" not in there]
    if missing:
        raise CheckpointError(
            f"the checkpoint lacks {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}: "
            "load it into parts of the network that it was saved from, as split() makes them"
        )
    starts = [f"optimizer.{name}." for name in own] + [f"interfaces.{n}." for n in interfaces]
    starts += ["scheduler.", "pipeline."]
    exact = {random, *(f"network.{name}" for name in own)}
    return [name for name in there if name in exact or name.startswith((*starts,))]


def _is_option(value: object) -> bool:
    values = value if isinstance(value, (tuple, list)) else [value]
    return bool(values) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
    )


def _numbers(value: Any) -> Tensor:
    values = value if isinstance(value, (tuple, list)) else [value]
    whole = all(isinstance(v, int) for v in values)
    return torch.tensor(value, dtype=torch.int64 if whole else torch.float64, device="cpu")


def _like(own: Any, saved: Tensor) -> Any:
    """Return saved numbers in the type of the present ones."""
    if isinstance(own, (tuple, list)):
        return type(own)(saved.tolist())
    if isinstance(own, Tensor):
        return saved.to(own)
    return saved.item()
