"""The wrapper's arguments, checked before anything is changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import nn
from torch.optim import Optimizer

from ._checks import check_flag
from ._torch import forward_hooks
from .cuts import UpdatePolicy
from .cuts._factory import class_takes_error
from .cuts._hooks import is_hooked
from .errors import describe, DNIError, SelectionError
from .placement import Layers, select, Selection, Site, takes_hooks
from .recurrent import FutureGradient, StateSpec
from .recurrent.future import check_future
from .recurrent.spec import resolve

#: Level of unlocking; docs/feedback.md describes the three.
Unlock = Literal["backward", "update", "full"]
_NAMED = 5  # parameters that a warning names
Recurrent = bool | Mapping[str, StateSpec | None] | None


class Places(NamedTuple):
    """Where the user wants the network to be cut.

    Attributes:
        selection: The layers to cut at, which a first pass turns into sites; None for none.
        skip_last_layer: Whether the layer that runs last is left out.
        sites: Sites that are known already.
        states: By qualified name, the modules whose state is cut in time.
    """

    selection: Selection | None
    skip_last_layer: bool
    sites: list[Site]
    states: dict[str, StateSpec]

    @property
    def in_space(self) -> bool:
        """Whether there are cuts in space."""
        return self.selection is not None or bool(self.sites)


def choose_places(
    network: nn.Module, layers: Layers, recursive: bool, skip_last_layer: bool, recurrent: Recurrent
) -> Places:
    """Return where the user wants the network to be cut.

    Raises:
        DNIError: The arguments contradict each other, or name something that is not there.
    """
    check_flag("recursive", recursive)
    check_flag("skip_last_layer", skip_last_layer)
    if not recursive and layers is not None:
        raise SelectionError("layers and recursive=False exclude each other: give one of them")
    states = resolve(network, recurrent, spatial=layers is not None or not recursive)
    selection = None
    if layers is not None or (recursive and not states):
        selection = select(network, layers, skip_last_layer)
    sites = [] if recursive else [Site("", "")]
    return Places(selection, skip_last_layer, sites, states)


def check_network(network: nn.Module, optim: Optimizer | None, wrapper: type[nn.Module]) -> None:
    """Raise :class:`DNIError` where a network cannot be wrapped.

    It is no module, it is wrapped already, it runs in threads, or the optimizer holds none of its
    parameters.
    """
    if not isinstance(network, nn.Module):
        raise DNIError(f"network must be a module, not {type(network).__name__}")
    if not takes_hooks(network):
        raise DNIError(
            f"network is a {type(network).__name__}, which takes no hooks: wrap the module that it "
            "was compiled from"
        )
    for name, module in network.named_modules():
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise DNIError(
                f"{describe(name, module)} runs copies of its network in threads at once, whose "
                "passes DNI cannot tell apart: take DistributedDataParallel"
            )
        if isinstance(module, wrapper) or is_hooked(forward_hooks(module).values()):
            raise DNIError(f"{describe(name, module)} is wrapped in DNI already: unwrap() it first")
    if optim is not None:
        _check_optim(network, optim)


def _check_optim(network: nn.Module, optim: Optimizer) -> None:
    if not isinstance(optim, Optimizer):
        raise DNIError(f"optim must be an optimizer or None, not {type(optim).__name__}")
    held = {id(parameter) for group in optim.param_groups for parameter in group["params"]}
    own = dict(network.named_parameters())
    if not any(id(parameter) in held for parameter in own.values()):
        raise DNIError(
            f"optim ({type(optim).__name__}) holds no parameter of the network "
            f"({type(network).__name__}): build it from network.parameters()"
        )
    lacks = [name for name, p in own.items() if p.requires_grad and id(p) not in held]
    if lacks:
        more = f" and {len(lacks) - _NAMED} more" if len(lacks) > _NAMED else ""
        warnings.warn(
            f"optim ({type(optim).__name__}) does not train these parameters of the network "
            f"({type(network).__name__}): {', '.join(lacks[:_NAMED])}{more}. Build it from "
            "network.parameters(), or leave optim out where another optimizer trains them",
            stacklevel=4,
        )


def choose_unlock(
    unlock: Unlock | None,
    places: Places,
    eager: bool,
    dni_network: object,
    dni_params: Mapping[str, Any] | None,
    hidden_size: int | None,
    context_size: int | None,
) -> Unlock:
    """Return the unlock level: what the user gave, or the one that suits the other arguments.

    Raises:
        DNIError: The level contradicts another argument.
    """
    _check_kinds(eager, dni_params)
    takes = isinstance(dni_network, type) and class_takes_error(dni_network, dni_params or {})
    at_output = bool(places.sites)
    if unlock is None:
        if takes:
            unlock = "backward"
        else:
            unlock = "update" if eager or at_output or context_size is not None else "backward"
    if unlock == "backward":
        if eager:
            raise DNIError(
                "unlock='backward' gives synthesizers the error, which is known in the backward "
                "pass only: leave eager out, or take unlock='update'"
            )
        if at_output:
            raise DNIError(
                "unlock='backward' with recursive=False: the gradient at the network's output is "
                "the error itself, and nothing is left to predict: take unlock='update'"
            )
    elif takes:
        raise DNIError(
            f"unlock={unlock!r}: the error that {getattr(dni_network, '__name__', dni_network)} "
            "takes is known in the backward pass only: take unlock='backward', without eager"
        )
    return unlock


def _check_kinds(eager: object, dni_params: object) -> None:
    check_flag("eager", eager)
    if dni_params is not None and not isinstance(dni_params, Mapping):
        raise DNIError(f"dni_params must be a mapping or None, not {type(dni_params).__name__}")


def check_combination(
    places: Places,
    full_unlock: bool,
    eager: bool,
    future: FutureGradient | None,
    policy: UpdatePolicy,
) -> FutureGradient:
    """Return the settings of states, or the defaults, once all arguments go together.

    Raises:
        DNIError: They contradict each other.
    """
    if eager and (places.states or full_unlock):
        raise DNIError(
            "eager takes unlock='update' and cuts in space alone: give recurrent=False to cut "
            "a recurrent network so"
        )
    if policy.skips_exact and (eager or full_unlock or policy.schedule.sparse or places.states):
        raise DNIError(
            "exact_every takes cuts in space alone, and neither eager, unlock='full' nor "
            "update_probability: its own steps have no true gradients"
        )
    future = check_future(future)
    if future.target != "bootstrap" and places.in_space:
        raise DNIError(
            f"future: target={future.target!r} runs windows again, and cuts in space would learn "
            "from them twice: leave layers out, or take target='bootstrap'"
        )
    return future


def example_call(example: Any, places: Places) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return example input as the arguments and the keywords of a call.

    Raises:
        DNIError: There is nothing to place by it.
    """
    if places.sites:
        raise DNIError("recursive=False has one known cut: leave example_input out")
    if isinstance(example, dict):
        return (), example
    return (example if isinstance(example, tuple) else (example,)), {}
