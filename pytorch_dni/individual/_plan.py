"""Which layer computes the gradients of which parameter, found and checked before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from ..errors import describe, DNIError
from ._attention import AttentionRule, fits
from ._fallback import VmapRule
from ._layers import ConvolutionRule, EmbeddingRule, LinearRule
from ._normalizations import (
    BatchNormRule,
    GroupNormRule,
    InstanceNormRule,
    LayerNormRule,
    RMSNormRule,
)
from ._recurrent import CellRule, RecurrentRule
from ._rules import LayerRule, registered_rule
from ._uses import Layer

_linear, _convolution, _recurrent = LinearRule(), ConvolutionRule(), RecurrentRule()
_batch, _instance = BatchNormRule(), InstanceNormRule()
_RULES: dict[type[nn.Module], LayerRule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.Embedding: EmbeddingRule(),
    nn.LayerNorm: LayerNormRule(),
    nn.RMSNorm: RMSNormRule(),
    nn.GroupNorm: GroupNormRule(),
    nn.RNN: _recurrent,
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
    nn.MultiheadAttention: AttentionRule(),
    **dict.fromkeys((nn.RNNCell, nn.LSTMCell, nn.GRUCell), CellRule()),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), _batch),
}


class Planned(NamedTuple):
    """A layer and its rule."""

    layer: Layer
    rule: LayerRule


class Plan:
    """The layers of a network, and the parameters whose gradients they compute.

    Args:
        network: The network.
        pause: Called with 1 before a layer is run again, and with -1 after it.

    Raises:
        DNIError: The network has a layer without per-example gradients.
    """

    def __init__(self, network: nn.Module, pause: Callable[[int], None]) -> None:
        self.parameters = {
            name: p for name, p in network.named_parameters() if p.requires_grad or is_lazy(p)
        }
        if not self.parameters:
            raise DNIError(
                f"no parameter of {describe('', network)} requires a gradient: there are no "
                "per-example gradients to compute"
            )
        self._names = {id(parameter): name for name, parameter in self.parameters.items()}
        self._pause = pause
        self.layers: list[Planned] = []
        self._groups: dict[str, str] = {}
        unknown: list[str] = []
        owned: set[nn.Module] = set()  # modules whose parameters another one computes
        for name, module in network.named_modules():
            _check_module(name, module)
            if module not in owned:
                self._add(name, module, owned, unknown)
        if unknown:
            warnings.warn(
                f"per-example gradients of {', '.join(unknown)} are computed by torch.func.vmap, "
                "which runs the layer again: register_rule gives its type a rule of its own",
                stacklevel=4,
            )

    def _add(self, name: str, module: nn.Module, owned: set[nn.Module], unknown: list[str]) -> None:
        rule = _known_rule(module)
        owners: dict[str, tuple[nn.Module, str]]
        if rule is None:
            owners = _owners(module, owned)
        else:
            rule.check(name, module)
            _check_own_parameters(name, module)
            owners = {local: _owner(module, local) for local in rule.parameters(module)}
            owned.update(owner for owner, _ in owners.values() if owner is not module)
        names = {
            local: self._names[id(getattr(*owner))]
            for local, owner in owners.items()
            if id(getattr(*owner)) in self._names
        }
        if rule is None and names:
            unknown.append(describe(name, module))
            rule = VmapRule(owners, module.forward, self._pause)
        if rule is not None and (names or isinstance(rule, BatchNormRule)):
            owners = {local: owners[local] for local in names}
            group = self._group(name, names.values())
            layer = Layer(name, module, names, frozenset(names), owners, group)
            self.layers.append(Planned(layer, rule))

    def _group(self, name: str, parameters: Iterable[str]) -> str:
        """Return the name of a layer's group: the first layer with one of the same parameters."""
        known = {self._groups[parameter] for parameter in parameters if parameter in self._groups}
        group = min(known, default=name)
        self._groups.update(dict.fromkeys(parameters, group))
        if len(known) > 1:  # the layer joins groups of layers before it
            self._groups = {p: group if g in known else g for p, g in self._groups.items()}
            self.layers = [
                Planned(layer._replace(group=group) if layer.group in known else layer, rule)
                for layer, rule in self.layers
            ]
        return group


def _check_module(name: str, module: nn.Module) -> None:
    reason = None
    if isinstance(module, torch.jit.ScriptModule):
        reason = "is a ScriptModule, whose forward pass cannot be followed: use the plain module"
    if isinstance(module, DataParallel):
        reason = "runs copies of its network: use DistributedDataParallel, or its module"
    if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
        reason = "has parameters without a shape yet: run the network once before"
    if reason is not None:
        raise DNIError(f"{describe(name, module)} {reason}")


def _check_own_parameters(name: str, module: nn.Module) -> None:
    """Raise where a hook makes the weight of a known layer from other parameters."""
    own = {local for local, _ in module.named_parameters(recurse=False)}
    if any(f"{local}_{end}" in own for local in ("weight", "bias") for end in ("g", "v", "orig")):
        raise DNIError(
            f"{describe(name, module)} has the parameters {', '.join(sorted(own))}, from which a "
            "hook makes its weight: use torch.nn.utils.parametrizations instead"
        )


def _known_rule(module: nn.Module) -> LayerRule | None:
    """Return the rule of a layer; None where the library does not know how the layer computes."""
    registered = registered_rule(module)
    if registered is not None:
        return registered
    if is_parametrized(module):
        return None
    for kind, rule in _RULES.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            if isinstance(module, nn.MultiheadAttention) and not fits(module):
                return None
            return rule
    return None


def _owner(module: nn.Module, local: str) -> tuple[nn.Module, str]:
    path, _, name = local.rpartition(".")
    return module.get_submodule(path), name


def _owners(module: nn.Module, owned: set[nn.Module]) -> dict[str, tuple[nn.Module, str]]:
    """Return the parameters that an unknown layer itself uses: its own, and of parametrizations."""
    parts: list[tuple[str, nn.Module]] = [("", module)]
    for child, name in (
        (getattr(module, "parametrizations", None), "parametrizations."),
        (module.out_proj if isinstance(module, nn.MultiheadAttention) else None, "out_proj."),
    ):
        if child is not None:
            parts += [(name + path + "." if path else name, m) for path, m in child.named_modules()]
            owned.update(child.modules())
    return {
        prefix + local: (part, local)
        for prefix, part in parts
        for local, _ in part.named_parameters(recurse=False, remove_duplicate=False)
    }
