"""Which modules of a network are layers, and which can be cut at all."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized, ParametrizationList

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_PARAMETRIZATIONS = "parametrizations"


def has_weight(module: nn.Module) -> bool:
    """Return whether a module is a layer with a weight.

    A weight is a parameter of two or more dimensions, or a parametrized tensor of that kind. A
    layer without modules inside has at least one. A layer with modules inside, such as those of
    quantisation-aware training, has one, and they have none: they change its weight or its output.
    A parameter that is not initialised yet (``nn.LazyLinear``) counts as a weight.
    """
    weights = _own_weights(module)
    inside = [child for name, child in module.named_children() if name != _PARAMETRIZATIONS]
    if not inside or not weights:
        return weights > 0
    return weights == 1 and not any(_own_weights(m) for child in inside for m in child.modules())


def holds_weight(module: nn.Module) -> bool:
    """Return whether a module, or one inside of it, has a parameter of two or more dimensions."""
    return any(_own_weights(inside) for inside in module.modules())


def is_unit(module: nn.Module) -> bool:
    """Return whether a module computes as a whole, so that no cut can be made inside it.

    It is a module without modules inside, a layer with a weight, or an operation of PyTorch, to
    which quantisation-aware training adds observers.
    """
    if next(module.children(), None) is None or has_weight(module):
        return True
    own = type(module).__module__.startswith("torch.nn.modules.")
    inside = any(next(child.parameters(), None) is not None for child in module.children())
    return own and not isinstance(module, _CONTAINERS) and not inside


def outer_modules(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that can be cut, by qualified name, without those inside of layers."""
    return {
        name: module
        for name, module in network.named_modules()
        if name
        and why_uncut(network, name) is None
        and not any(is_unit(outer) for outer in _around(network, name))
    }


def why_uncut(network: nn.Module, name: str) -> str | None:
    """Return why a network cannot be cut at a module; None where it can."""
    outer = _around(network, name)
    if any(isinstance(module, torch.jit.ScriptModule) for module in outer):
        return "it is inside a ScriptModule, which does not call it from Python"
    module = network.get_submodule(name)
    if not takes_hooks(module):
        return "it is a ScriptModule, which takes no hooks"
    if any(isinstance(m, ParametrizationList) for m in (*outer, module)):
        return "it is a parametrization: it returns a weight, and no activation"
    return None


def takes_hooks(module: nn.Module) -> bool:
    """Return whether a module can be given hooks; a compiled ``ScriptModule`` cannot."""
    return type(module).register_forward_hook is nn.Module.register_forward_hook


def _around(network: nn.Module, name: str) -> list[nn.Module]:
    """Return the modules inside of the network that hold a module."""
    parts = name.split(".")
    return [network.get_submodule(".".join(parts[:end])) for end in range(1, len(parts))]


def _own_weights(module: nn.Module) -> int:
    """Return how many weights a module has, those of modules inside left out."""
    tensors = [[parameter] for parameter in module.parameters(recurse=False)]
    if is_parametrized(module):
        made = module.get_submodule(_PARAMETRIZATIONS).children()
        tensors += [[*tensor.parameters(recurse=False)] for tensor in made]
    return sum(any(is_lazy(part) or part.dim() >= 2 for part in parts) for parts in tensors)
